"""Devices as text: what is written is read back, hostile text stays text, wishes fit as specified."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubesd.errors import ProtocolError, QubesError
from qubesd.model.device_text import assignment_line, device_line, parse_properties, parse_wanted
from qubesd.model.devices import Device, Wanted, by_precedence, fits, has_denied
from qubesd.model.state import Assignment

KEYS = st.from_regex(r"[A-Za-z0-9_\-]{1,10}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).filter(
    lambda text: "=" not in text and "\\" not in text and not text.endswith("'")
)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_properties_are_read_back(pairs: dict[str, str]) -> None:
    escaped = ((key, value.replace("'", "\\'")) for key, value in pairs.items())
    text = " ".join(f"{key}='{value}'" for key, value in escaped)
    assert parse_properties(text.encode()) == pairs


@given(st.binary(max_size=60))
def test_any_bytes_are_properties_or_refused(data: bytes) -> None:
    try:
        found = parse_properties(data)
    except ProtocolError:
        return
    assert all(key.isascii() and value.isprintable() for key, value in found.items())


@pytest.mark.parametrize(
    ("argument", "wanted"),
    [
        ("sys-usb+2-1", Wanted("sys-usb", "2-1")),
        ("sys-usb+2-1+0951+1666+SER+u080650", Wanted("sys-usb", "2-1", "0951:1666:SER:u080650")),
        ("sys-usb+_+0951+1666++u080650", Wanted("sys-usb", "*", "0951:1666::u080650")),
        ("dom0+00_1f.2+0x8086+0x1234++p010601", Wanted("dom0", "00_1f.2", "0x8086:0x1234::p010601")),
        ("a+sda:_", Wanted("a", "sda")),
        ("a+_+0000+0000++_______", Wanted("a", "*", "0000:0000::?******")),
    ],
)
def test_arguments(argument: str, wanted: Wanted) -> None:
    assert parse_wanted(argument) == wanted


@pytest.mark.parametrize("argument", ["sda", "a+", "+sda", "a+b/c", "a+../x", "a+b+", "a b+c", "a+b+c d"])
def test_what_names_no_device(argument: str) -> None:
    with pytest.raises(QubesError):
        parse_wanted(argument)


def test_what_a_guest_says_of_itself_cannot_break_a_line() -> None:
    device = Device("block", "work", "sda", "x", name="a' b='c\n\x1b", serial="é\\'")
    line = device_line(device, None)
    assert line.count("\n") == 1
    assert parse_properties(line.partition(" ")[2].rstrip("\n").encode())["port_id"] == "sda"
    assert line.isascii()
    assert line[:-1].isprintable()


def test_an_assignment_as_stock_has_it() -> None:
    line = assignment_line(Assignment("block", "bank", "sda", mode="required", options={"read-only": "yes"}))
    assert line == (
        "bank+sda:* device_id='*' port_id='sda' devclass='block' backend_domain='bank' mode='required' "
        "_read-only='yes'\n"
    )


@given(st.text(), st.text(), st.text(), st.text())
def test_what_a_store_may_hold_cannot_break_a_line(port: str, identity: str, option: str, value: str) -> None:
    text = assignment_line(Assignment("usb", "sys-usb", port, identity, "required", {option: value}))
    assert text.endswith("\n")
    assert text[:-1].isascii()
    assert text[:-1].isprintable()
    head, _, _ = text.partition(" device_id=")
    assert " " not in head
    assert text.count("mode='required' _") >= 1


def test_the_most_specific_wish_comes_first() -> None:
    port, identity, both = (
        Assignment("block", "b", "p", "*"),
        Assignment("block", "b", "*", "i"),
        Assignment("block", "b", "p", "i"),
    )
    assert by_precedence([identity, port, both]) == [both, port, identity]
    device = Device("block", "b", "p", "i")
    assert all(fits(one.port, one.identity, device) for one in (port, identity, both))
    assert not fits("q", "*", device)
    assert not fits("*", "j", device)


@pytest.mark.parametrize(
    ("denied", "interfaces", "found"),
    [
        ("", "u080650", False),
        ("u080650", "u080650", True),
        ("u08****", "b******u080650", True),
        ("b******", "u080650", False),
        ("*******", "?******", True),
        ("u080650b010203", "m******", False),
    ],
)
def test_denied_interfaces(denied: str, interfaces: str, found: bool) -> None:
    assert has_denied(denied, interfaces) is found
