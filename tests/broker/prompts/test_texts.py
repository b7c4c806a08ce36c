"""Texts of others, made harmless."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.prompts.texts import service_parts, shown, time_left


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", ""),
        ("plain text, <b>&amp;", "plain text, <b>&amp;"),
        (r"a\n\\b", r"a\n\\b"),
        ("a\nb\r\t\0", r"a\x0ab\x0d\x09\x00"),
        ("\x1b[31m\x9b", r"\x1b[31m\x9b"),
        ("\u202evault", r"\u202evault"),
        ("w\u043erk", r"w\u043erk"),
        ("\U0001f600\ud800", r"\U0001f600\ud800"),
        ("a   b", r"a \x20\x20b"),
        (" a ", r"\x20a\x20"),
        (" ", r"\x20"),
        ("\u00a0", r"\xa0"),
    ],
)
def test_what_a_text_looks_like(text: str, want: str) -> None:
    assert shown(text) == (want, 0)


@given(st.text(), st.integers(0, 40))
def test_it_is_harmless_bounded_and_says_what_is_missing(text: str, most: int) -> None:
    found, missing = shown(text, most)
    assert len(found) <= most
    assert found.isascii()
    assert found == "" or found.isprintable()
    assert "  " not in found
    whole = shown(text, 10 * len(text))
    assert whole.text.startswith(found)
    assert (found == whole.text, whole.missing) == (not missing, 0)


@given(st.text())
def test_what_is_harmless_already_stays_as_it_is(text: str) -> None:
    once = shown(text, 10_000)
    assert shown(once.text, 10_000) == once


@pytest.mark.parametrize(
    ("service", "want"),
    [
        ("qubes.Filecopy", ("qubes.", "Filecopy")),
        ("admin.vm.Start", ("admin.", "vm.Start")),
        ("plain", ("", "plain")),
        ("odd.", ("", "odd.")),
        (".odd", (".", "odd")),
    ],
)
def test_the_part_of_a_service_that_is_marked(service: str, want: tuple[str, str]) -> None:
    assert service_parts(service) == want


@pytest.mark.parametrize(
    ("seconds", "want"), [(120, "2:00"), (59.6, "1:00"), (59.4, "0:59"), (0.2, "0:00"), (-3, "0:00")]
)
def test_the_time_that_is_left(seconds: float, want: str) -> None:
    assert time_left(seconds) == want
