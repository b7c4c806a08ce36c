"""firewall.xml: what is written is read back, the old format is understood, anything else is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubesd.errors import QubeError
from qubesd.model.firewall import Rule, line
from qubesd.store.firewall import dump, load
from tests.qubesd.model.test_firewall import rules


@given(st.lists(rules(), max_size=8))
def test_what_is_written_is_read_back(kept: list[Rule]) -> None:
    assert load(dump(kept), "here") == kept


def test_a_single_port_and_a_network_stand_as_stock_has_them() -> None:
    text = dump([Rule("accept", dst="10.0.0.0/8", proto="tcp", dstports=(443, 443))]).decode()
    assert '<property name="dsthost">10.0.0.0/8</property>' in text
    assert '<property name="dstports">443</property>' in text


def test_the_old_format() -> None:
    old = b"""<QubesFirewallRules policy="deny" dns="allow" icmp="deny">
        <rule address="192.0.2.0" netmask="24" proto="any" port="80" toport="81"/>
        <rule address="a.org" proto="udp" expire="4102444800"/></QubesFirewallRules>"""
    assert [line(rule) for rule in load(old, "here")] == [
        "action=accept specialtarget=dns",
        "action=drop proto=icmp",
        "action=accept dst4=192.0.2.0/24 proto=tcp dstports=80-81",
        "action=accept expire=4102444800 dsthost=a.org proto=udp",
    ]


def test_what_the_old_format_does_not_say_is_as_its_policy() -> None:
    for policy, action in (("allow", "accept"), ("deny", "drop")):
        found = [line(rule) for rule in load(f"<firewall policy='{policy}'/>".encode(), "here")]
        assert found[:2] == [f"action={action} specialtarget=dns", f"action={action} proto=icmp"]
        assert found[2:] == ["action=accept"] * (policy == "allow")


def test_a_comment_in_a_value_does_not_cut_it() -> None:
    (rule,) = load(
        of_properties(b"<property name='dsthost'>192.0.2.<!-- of the office -->1</property>"), "here"
    )
    assert rule.dst == "192.0.2.1/32"


def of_properties(more: bytes, beside: bytes = b"") -> bytes:
    """A file with one rule that accepts."""
    action = b"<property name='action'>accept</property>"
    rule = b"<rule><properties>" + action + more + b"</properties>" + beside + b"</rule>"
    return b"<firewall version='2'><rules>" + rule + b"</rules></firewall>"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<firewall/>",
        of_properties(b"<property name='dsthost'>192.0.2.1</property>" * 2),
        of_properties(b"<property name='dsthost'><b>192.0.2.1</b></property>"),
        of_properties(b"<unless/>"),
        of_properties(b"", b"<unless><property name='dsthost'>192.0.2.1</property></unless>"),
        b"<!DOCTYPE a [<!ENTITY e '192.0.2.1'>]>" + of_properties(b"<property name='dsthost'>&e;</property>"),
        b"<firewall version='3'/>",
        b"<firewall version='2'><rules><rule/></rules></firewall>",
        b"<firewall version='2'><rules><rule><properties><property name='x'>1</property></properties></rule>"
        b"</rules></firewall>",
        b"<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><firewall version='2'><rules><rule>"
        b"<properties><property name='action'>&e;</property></properties></rule></rules></firewall>",
        b"<firewall policy='deny'><rule address='1.2.3.4' netmask='x'/></firewall>",
    ],
    ids=[
        *("empty", "no-policy", "property-twice", "element-in-value", "unknown-element", "unknown-part"),
        "entity-in-value",
        "version",
        "no-action",
        "unknown",
        "entity",
        "mask",
    ],
)
def test_what_cannot_be_read_is_named(data: bytes) -> None:
    with pytest.raises(QubeError, match="here: no firewall rules can be read"):
        load(data, "here")
