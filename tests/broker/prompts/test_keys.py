"""What is typed, and what it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.prompts.front import PAUSE
from broker.prompts.keys import LONGEST, Keys, Said

NOTHING, DENY, ALLOW, MISTAKEN = Said.NOTHING, Said.DENY, Said.ALLOW, Said.MISTAKEN


def keys(choices: int = 3, default: int | None = None, awake: bool = True) -> Keys:
    return Keys(choices, default, 0.0, awake=awake)


@pytest.mark.parametrize(
    ("pieces", "default", "want", "chosen"),
    [
        pytest.param([b"2\r"], None, ALLOW, 2, id="number"),
        pytest.param([b"2", b"\n"], None, ALLOW, 2, id="in-pieces"),
        pytest.param([b"02\r"], None, ALLOW, 2, id="leading-zero"),
        pytest.param([b"2"], None, NOTHING, 0, id="no-enter"),
        pytest.param([b"21\x7f\x08\x082\r"], None, ALLOW, 2, id="erased"),
        pytest.param([b"\x7f\x7f3\r"], None, ALLOW, 3, id="erasing-nothing"),
        pytest.param([b"0\r"], None, MISTAKEN, 0, id="zero"),
        pytest.param([b"4\r"], None, MISTAKEN, 0, id="too-high"),
        pytest.param([b"two\r"], None, MISTAKEN, 0, id="a-word"),
        pytest.param([b"yes\r"], 1, MISTAKEN, 0, id="yes-to-nothing"),
        pytest.param([b"y\r"], 1, MISTAKEN, 0, id="y"),
        pytest.param([b"\r"], None, MISTAKEN, 0, id="enter-without-default"),
        pytest.param([b"\r"], 2, NOTHING, 2, id="enter-alone-allows-nothing"),
        pytest.param([b"\r", b"yes\r"], 2, ALLOW, 2, id="enter-and-yes"),
        pytest.param([b"\r", b"YES\r"], 2, ALLOW, 2, id="capitals"),
        pytest.param([b"\r", b"\r"], 2, DENY, 2, id="enter-twice-denies"),
        pytest.param([b"\r", b"y\r"], 2, DENY, 2, id="y-is-not-yes"),
        pytest.param([b"\r", b"1\r"], 2, DENY, 2, id="a-number-is-not-yes"),
        pytest.param([b"\ryes\r"], 2, NOTHING, 2, id="in-one-piece-it-is-pasted"),
        pytest.param([b"d\r"], 2, DENY, 0, id="d"),
        pytest.param([b"No\r"], 2, DENY, 0, id="no"),
        pytest.param([b"\x03"], 2, DENY, 0, id="ctrl-c"),
        pytest.param([b"1\x04\r"], 2, DENY, 0, id="ctrl-d"),
        pytest.param([b"\x1b[A", b"1\r"], 2, ALLOW, 1, id="an-arrow-is-nothing"),
        pytest.param([b"\x1b[1~\r"], 2, NOTHING, 0, id="nor-the-rest-of-its-piece"),
        pytest.param([b"\xff\x00 \t-1\r"], 2, ALLOW, 1, id="other-keys"),
        pytest.param([b"1" * 5000 + b"\r"], 2, MISTAKEN, 0, id="long"),
    ],
)
def test_what_is_said(pieces: list[bytes], default: int | None, want: Said, chosen: int) -> None:
    typed = keys(default=default)
    said = [typed.press(piece, 5.0) for piece in pieces]
    assert said[:-1] == [NOTHING] * (len(pieces) - 1)
    assert said[-1] is want
    assert typed.chosen == chosen


def test_what_is_typed_too_early_counts_for_nothing_and_puts_it_off() -> None:
    typed = keys(default=1, awake=False)
    assert typed.wakes == PAUSE
    assert typed.press(b"1\ryes\r\x03", 0.75) is NOTHING
    assert (typed.line, typed.confirming, typed.wakes) == ("", False, 0.75 + PAUSE)


@given(st.lists(st.binary()), st.booleans())
def test_no_keys_are_too_much_and_none_allows_what_is_no_choice(pieces: list[bytes], default: bool) -> None:
    typed = keys(choices=12, default=3 if default else None)
    for piece in pieces:
        said = typed.press(piece, 0.0)
        assert len(typed.line) <= LONGEST
        assert typed.line.isascii()
        if said is ALLOW:
            assert 1 <= typed.chosen <= 12
            return


@given(st.binary())
def test_before_it_is_time_nothing_is_an_answer(piece: bytes) -> None:
    assert keys(default=1, awake=False).press(piece, 0.5) is NOTHING
