"""Firewall rules: every line has one canonical form, and what is no rule is refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubesd.errors import BadValue
from qubesd.model.firewall import Rule, line, parse

NETWORKS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(
    lambda address: f"{address}/{address.max_prefixlen}"
)
HOSTS = st.from_regex(r"[a-z][a-z0-9\-]{0,20}\.[a-z]{2,4}", fullmatch=True)
PORTS = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda ends: (min(ends), max(ends)))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    proto = draw(st.sampled_from((None, "tcp", "udp", "icmp")))
    return Rule(
        draw(st.sampled_from(("accept", "drop"))),
        draw(st.none() | st.integers(0, 10**12)),
        draw(st.none() | NETWORKS | HOSTS),
        proto,
        draw(st.sampled_from((None, "dns"))),
        draw(st.none() | PORTS) if proto in ("tcp", "udp") else None,
        draw(st.none() | st.integers(0, 255)) if proto == "icmp" else None,
        draw(st.none() | st.from_regex(r"[A-Za-z0-9:;,./\-_\[\] ]{0,30}", fullmatch=True)),
    )


@given(rules())
def test_the_canonical_form_says_the_same(rule: Rule) -> None:
    assert parse(line(rule)) == rule
    assert line(parse(line(rule))) == line(rule)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("dsthost=1.2.3.4 action=drop", "action=drop dst4=1.2.3.4/32"),
        ("action=accept dst4=::1", "action=accept dst6=::1/128"),
        ("action=accept dstname=a.org", "action=accept dsthost=a.org"),
        ("proto=tcp action=accept dstports=1", "action=accept proto=tcp dstports=1-1"),
        ("action=accept comment=", "action=accept comment="),
        ("action=accept comment=x action=drop,", None),
        ("action=accept comment=a b: c", "action=accept comment=a b: c"),
    ],
)
def test_forms(text: str, canonical: str | None) -> None:
    if canonical is None:
        with pytest.raises(BadValue, match="comment"):
            parse(text)
    else:
        assert line(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "unknown option"),
        ("action=accept ", "unknown option"),
        ("action=accept dst=1.2.3.4", "unknown option"),
        ("comment=x", "unknown option"),
        ("proto=tcp", "needs action"),
        ("action=accept dst4=1.2.3.4/255.0.0.0", "prefix"),
        ("action=accept dsthost=A.org", "host"),
        ("action=accept dsthost=" + "a" * 300, "host"),
        ("action=accept expire=9999999999999999", "number"),
        ("action=accept expire=\u0661", "cannot be"),
        ("action=accept proto=tcp dstports=65536", "range"),
        ("action=accept proto=icmp icmptype=0256", "number"),
        ("action=accept dst4=1.1.1.1 dst6=::1", "twice"),
    ],
)
def test_what_is_no_rule(text: str, why: str) -> None:
    with pytest.raises(BadValue, match=why):
        parse(text)
