"""Bytes to calls and replies, and back: tables, and the laws that hold for any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.wire import (
    ESTABLISHED,
    MAX_REQUEST,
    EventReader,
    Failure,
    FramingError,
    RequestReader,
    WireEvent,
    encode_call,
    encode_content,
    encode_error,
    encode_event,
    encode_refusal,
    parse_call,
    parse_reply,
)
from qubesd.api.call import Call
from qubesd.errors import BadValue, InvalidTag, PermissionDenied, ProtocolError, QubesError

WORDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)
CALLS = st.builds(
    Call,
    service=WORDS.map(lambda word: word.replace("+", "")),
    argument=WORDS,
    source=WORDS,
    target=st.text(st.characters(min_codepoint=0x01, max_codepoint=0x7E), max_size=40),
    payload=st.binary(max_size=200),
)
PLAIN = st.text(st.characters(min_codepoint=0x01, max_codepoint=0x7E), max_size=20)
EVENTS = st.builds(
    WireEvent,
    subject=PLAIN,
    name=PLAIN,
    keys=st.dictionaries(PLAIN.filter(bool), PLAIN, max_size=4),
)


@pytest.mark.parametrize(
    ("request_", "want"),
    [
        pytest.param(
            b"admin.vm.List+ dom0 name work\0",
            Call("admin.vm.List", "", "dom0", "work", b""),
            id="empty-argument",
        ),
        pytest.param(
            b"admin.vm.List dom0 name work\0", Call("admin.vm.List", "", "dom0", "work", b""), id="no-plus"
        ),
        pytest.param(
            b"a.B+x+y dom0 name work\0", Call("a.B", "x+y", "dom0", "work", b""), id="plus-in-the-argument"
        ),
        pytest.param(
            b"a.B dom0 keyword adminvm\0", Call("a.B", "", "dom0", "dom0", b""), id="keyword-adminvm"
        ),
        pytest.param(
            b"a.B dom0 name work\0pay\0load",
            Call("a.B", "", "dom0", "work", b"pay\0load"),
            id="payload-with-nul",
        ),
        pytest.param(
            b"a.B dom0 name a b $\0", Call("a.B", "", "dom0", "a b $", b""), id="rest-is-the-target"
        ),
        pytest.param(b"a.B dom0 name \0", Call("a.B", "", "dom0", "", b""), id="empty-target"),
    ],
)
def test_reads_a_call(request_: bytes, want: Call) -> None:
    assert parse_call(request_) == want


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0", id="a-nul"),
        pytest.param(b"admin.vm.List+ dom0 name dom0", id="no-nul"),
        pytest.param(b"admin.vm.List+ dom0 dom0\0", id="three-words"),
        pytest.param(b"admin.vm.List+ dom0 foo dom0\0", id="unknown-kind"),
        pytest.param(b"admin.vm.List+ dom0 uuid dom0\0", id="kind-uuid"),
        pytest.param(b"admin.vm.List+ dom0 keyword dispvm\0", id="other-keyword"),
        pytest.param(b"admin.vm.List+a b dom0 name dom0\0", id="blank-in-the-argument"),
        pytest.param("admin.vm.tag.Get+é dom0 name dom0\0".encode(), id="not-ascii"),
    ],
)
def test_refuses_what_is_no_call(request_: bytes) -> None:
    with pytest.raises(FramingError):
        parse_call(request_)


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: b"admin.vm.List+ dom0 name " + tail))
def test_any_bytes_are_a_call_or_a_framing_error(data: bytes) -> None:
    try:
        call = parse_call(data)
    except FramingError:
        return
    assert call.payload == data.partition(b"\0")[2]
    assert (call.service + call.argument + call.source + call.target).isascii()


@given(CALLS)
def test_a_written_call_is_read_as_the_same(call: Call) -> None:
    assert parse_call(encode_call(call)) == call


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(Call("a b", "", "dom0", "work", b""), id="blank-in-the-service"),
        pytest.param(Call("a+b", "", "dom0", "work", b""), id="plus-in-the-service"),
        pytest.param(Call("a", "b c", "dom0", "work", b""), id="blank-in-the-argument"),
        pytest.param(Call("a", "", "dom0", "wo\0rk", b""), id="nul-in-the-target"),
        pytest.param(Call("a", "", "dém0", "work", b""), id="not-ascii"),
        pytest.param(Call("a", "", "dom0", "work", bytes(MAX_REQUEST)), id="too-long"),
    ],
)
def test_what_would_be_read_as_another_call_is_not_written(call: Call) -> None:
    with pytest.raises(FramingError):
        encode_call(call)


@given(st.lists(st.binary(max_size=30)))
def test_a_request_may_come_in_any_pieces(pieces: list[bytes]) -> None:
    reader = RequestReader()
    for piece in pieces:
        reader.feed(piece)
    assert reader.end() == b"".join(pieces)


def test_the_first_byte_above_the_limit_is_too_much() -> None:
    reader = RequestReader()
    reader.feed(bytes(MAX_REQUEST))
    with pytest.raises(FramingError):
        reader.feed(b"x")


@pytest.mark.parametrize(
    ("start", "want"),
    [
        pytest.param(b"a.B+ alice name work", None, id="header-not-whole"),
        pytest.param(b"a.B+ alice name work\0", "alice", id="whole"),
        pytest.param(b"nonsense\0", None, id="no-words"),
    ],
)
def test_the_source_is_known_with_the_header(start: bytes, want: str | None) -> None:
    reader = RequestReader()
    reader.feed(start)
    assert reader.source() == want


@pytest.mark.parametrize(
    ("error", "want"),
    [
        pytest.param(QubesError("5% of it"), b"2\0QubesException\0\x005%% of it\0", id="percent-doubled"),
        pytest.param(
            ProtocolError("5% of it"), b"2\0ProtocolError\0\x005% of it\0", id="not-where-not-formatted"
        ),
        pytest.param(PermissionDenied("50%"), b"2\0PermissionDenied\0\x0050%\0", id="nor-here"),
        pytest.param(InvalidTag("50%"), b"2\0QubesInvalidTagError\0\x0050%%\0", id="but-in-its-sub-classes"),
        pytest.param(BadValue("a\0b"), b"2\0QubesValueError\0\0a\\x00b\0", id="nul-escaped"),
        pytest.param(BadValue("é"), b"2\0QubesValueError\0\0\\xe9\0", id="ascii-only"),
    ],
)
def test_writes_an_error(error: QubesError, want: bytes) -> None:
    written = encode_error(error)
    assert written == want
    # What a stock client's parser needs at least.
    assert written.count(b"\0") == 4


@given(st.text())
def test_an_error_is_read_with_the_text_it_was_written_with(text: str) -> None:
    escaped = text.encode("ascii", "backslashreplace").decode("ascii").replace("\0", "\\x00")
    for error in (QubesError(text), ProtocolError(text)):
        assert parse_reply(encode_error(error)) == Failure(error.wire_name, escaped)


@given(st.text(st.characters(codec="utf-8")))
def test_content_is_read_as_it_was_written(text: str) -> None:
    assert parse_reply(encode_content(text)) == text.encode("utf-8")


def test_a_refusal_says_nothing_but_a_number() -> None:
    assert encode_refusal(7) == b"2\0PermissionDenied\0\0denied by policy, record 7\0"
    refusal = parse_reply(encode_refusal(7))
    assert isinstance(refusal, Failure)
    assert refusal.refused
    assert not Failure("PermissionDenied", "this tag is dom0's").refused


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda tail: b"2\0" + tail))
def test_any_bytes_are_a_reply_or_a_framing_error(data: bytes) -> None:
    try:
        reply = parse_reply(data)
    except FramingError:
        return
    assert isinstance(reply, Failure) or reply == data[2:]


def test_fields_are_filled_in_as_stock_clients_do() -> None:
    reply = b"2\0QubesException\0\0%s of %d\0three\x0012\0"
    assert parse_reply(reply) == Failure("QubesException", "three of 12")


@given(st.lists(EVENTS, max_size=5), st.integers(min_value=1, max_value=40))
def test_events_are_read_as_they_were_written_in_any_pieces(events: list[WireEvent], size: int) -> None:
    data = ESTABLISHED + b"".join(encode_event(one.subject, one.name, one.keys.items()) for one in events)
    reader = EventReader()
    found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
    assert found == [WireEvent("", "connection-established"), *events]


def test_an_event_cannot_be_ended_by_what_is_in_it() -> None:
    message = encode_event("work", "domain-feature-set:x", (("value", "a\0\0b"), ("é", "")))
    assert EventReader().feed(message) == [
        WireEvent("work", "domain-feature-set:x", {"value": "a\\x00\\x00b", "\\xe9": ""})
    ]
    with pytest.raises(ValueError, match="empty"):
        encode_event("work", "x", (("", "a"),))


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_are_events_or_a_framing_error(pieces: list[bytes]) -> None:
    reader = EventReader()
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.end()
    except FramingError:
        pass


def test_an_error_instead_of_a_stream_is_read_at_its_end() -> None:
    reader = EventReader()
    error = encode_refusal(3)
    assert reader.feed(error[:10]) == reader.feed(error[10:]) == []
    assert reader.end() == parse_reply(error)


def test_a_stream_that_ends_within_an_event_is_broken() -> None:
    reader = EventReader()
    assert reader.feed(ESTABLISHED + b"1\0work\0domain-st") == [WireEvent("", "connection-established")]
    with pytest.raises(FramingError):
        reader.end()
