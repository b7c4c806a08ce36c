from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubesd.errors import BadValue
from qubesd.model import forms
from qubesd.model.state import Value

FORMS = (forms.text, forms.integer, forms.boolean, forms.qube, forms.ipv4, forms.ipv6, forms.mac)


@pytest.mark.parametrize(
    ("form", "given_", "value"),
    [
        pytest.param(forms.integer, b" 7", 7, id="int-blank"),
        pytest.param(forms.integer, b"+3", 3, id="int-sign"),
        pytest.param(forms.integer, b"00", 0, id="int-zeros"),
        pytest.param(forms.integer, b"4\n", 4, id="int-line-end"),
        pytest.param(forms.integer, b"-5", -5, id="int-negative"),
        pytest.param(forms.integer, b"9223372036854775807", 2**63 - 1, id="int-largest"),
        pytest.param(forms.boolean, b"YES", True, id="bool-any-case"),
        pytest.param(forms.boolean, b"off", False, id="bool-off"),
        pytest.param(forms.text, b"a\tb\n", "a\tb\n", id="text-white-space"),
        pytest.param(forms.text, b"", "", id="text-empty"),
        pytest.param(forms.qube, b"", None, id="qube-none"),
        pytest.param(forms.qube, b"work", "work", id="qube"),
        pytest.param(forms.ipv4, b"10.137.0.77", "10.137.0.77", id="ipv4"),
        pytest.param(forms.ipv6, b"2001:DB8::5", "2001:db8::5", id="ipv6-shortest"),
        pytest.param(forms.mac, b"00:16:3E:5E:6C:FF", "00:16:3e:5e:6c:ff", id="mac-lower"),
    ],
)
def test_value(form: Callable[[bytes], Value], given_: bytes, value: Value) -> None:
    assert form(given_) == value
    assert type(form(given_)) is type(value)


@pytest.mark.parametrize(
    ("form", "given_"),
    [
        *(
            pytest.param(forms.integer, text, id=f"int-{text!r}")
            for text in (
                b"",
                b"x",
                b"1.5",
                b"0x10",
                b"1e3",
                b"1_0",
                b"- 1",
                "٣".encode(),
                b"9" * 20,
                b"0" * 65,
            )
        ),
        *(
            pytest.param(forms.boolean, text, id=f"bool-{text!r}")
            for text in (b"", b" 1", b"2", b"1\n", b"\xe9")
        ),
        *(
            pytest.param(forms.text, text, id=f"text-{text!r}")
            for text in (b"\0", b"\x7f", b"\x0b", b"\xc3\xa9")
        ),
        *(pytest.param(forms.qube, text, id=f"qube-{text!r}") for text in (b" ", b"a$b", b"none", b"a\n")),
        *(
            pytest.param(forms.ipv4, text, id=f"ipv4-{text!r}")
            for text in (b"", b"256.1.1.1", b"1.2.3", b"01.2.3.4")
        ),
        *(
            pytest.param(forms.ipv6, text, id=f"ipv6-{text!r}")
            for text in (b"", b"xyz", b"1.2.3.4", b"fe80::1%eth0")
        ),
        *(pytest.param(forms.mac, text, id=f"mac-{text!r}") for text in (b"", b"zz", b"00-16-3e-5e-6c-01")),
    ],
)
def test_refused(form: Callable[[bytes], Value], given_: bytes) -> None:
    with pytest.raises(BadValue):
        form(given_)


@given(st.sampled_from(FORMS), st.binary(max_size=80))
def test_any_bytes_are_a_value_or_refused(form: Callable[[bytes], Value], untrusted: bytes) -> None:
    try:
        answer = str(form(untrusted))
    except BadValue as error:
        answer = str(error)
    assert answer.isascii()
    assert all(character.isprintable() or character in "\t\n\r" for character in answer)
