"""Every message of the stock protocol, and everything that is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.prompts.messages import MAX_TARGETS, MessageError, Note, Question, answer, parse
from tests.broker.prompts.agent_rig import ASK, DEVICE, ask, device, message, notify, question

HEADER = b"policy.Ask dom0 name dom0\0"


def test_a_question_byte_for_byte() -> None:
    said = (
        b"policy.Ask dom0 name dom0\0"
        b'{"source": "work", "service": "qubes.Filecopy", "argument": "+", "targets": ["personal", "vault"], '
        b'"default_target": "", "icons": {"work": "appvm-green", "vault": "appvm-black", "sys-net": "x"}}'
    )
    assert parse(said) == Question(
        heading="Shall this call be made?",
        source="work",
        service="qubes.Filecopy",
        untrusted_facts=(),
        targets=("personal", "vault"),
        default_target=None,
        icons={"work": "appvm-green", "vault": "appvm-black"},
    )


def test_a_question_about_a_device_byte_for_byte() -> None:
    said = (
        b"device-agent.GUI dom0 name dom0\0"
        b'{"source": "sys-usb", "device_name": "Big\\u202e Disk", "argument": "sda", "targets": ["work"], '
        b'"default_target": "work", "icons": {"sys-usb": "x", "work": "y"}}'
    )
    assert parse(said) == Question(
        heading="Shall this device be attached?",
        source="sys-usb",
        service=None,
        untrusted_facts=(("device", "Big\u202e Disk"), ("port", "sda")),
        targets=("work",),
        default_target="work",
        icons={"sys-usb": "x", "work": "y"},
    )


@pytest.mark.parametrize("resolution", ["allow", "deny", "fail"])
def test_a_note_byte_for_byte(resolution: str) -> None:
    said = (
        b"policy.Notify dom0 name dom0\0"
        b'{"resolution": "%b", "service": "qubes.Filecopy", "argument": "+x y", "source": "work", '
        b'"target": "@dispvm:<b>\\u202e"}' % resolution.encode()
    )
    assert parse(said) == Note(resolution, "work", "qubes.Filecopy", "+x y", "@dispvm:<b>\u202e")


@pytest.mark.parametrize(
    "header", [b"policy.Ask dom0", b"policy.Ask dom0 ", b"policy.Ask dom0 keyword adminvm more words"]
)
def test_two_words_of_the_header_count(header: bytes) -> None:
    assert parse(header + b"\0" + json.dumps(ASK).encode()) == question()


def test_neither_the_separators_nor_the_order_of_json_count() -> None:
    backwards = dict(reversed(ASK.items()))
    assert parse(HEADER + json.dumps(backwards, indent=2, separators=(" ,", "\t:")).encode()) == question()


def test_dom0_has_an_icon_without_a_name() -> None:
    found = question(targets=["dom0"], default_target="", icons={"dom0": "", "work": "appvm-red"})
    assert found.icons == {"dom0": "", "work": "appvm-red"}


def test_a_key_that_nobody_knows_is_passed_over() -> None:
    assert parse(ask(later=["x"])) == question()


@pytest.mark.parametrize(
    ("said", "argument", "target", "value"),
    [
        pytest.param("+", None, None, None, id="none"),
        pytest.param("+a+b", "+a+b", None, None, id="plain"),
        pytest.param("+netvm of vault", "+netvm", "vault", None, id="target"),
        pytest.param("+netvm = sys-net", "+netvm", None, "sys-net", id="value"),
        pytest.param("+netvm of vault = sys-net", "+netvm", "vault", "sys-net", id="both"),
        pytest.param("+ of vault = ", None, "vault", "", id="empty-value"),
        pytest.param("+a = b of c = d", "+a", None, "b of c = d", id="value-takes-the-rest"),
        pytest.param("+a=b", "+a=b", None, None, id="no-blanks-no-value"),
        pytest.param("+a = \n\x1b[2J\u202e", "+a", None, "\n\x1b[2J\u202e", id="hostile-value"),
    ],
)
def test_what_the_argument_tells(
    said: str, argument: str | None, target: str | None, value: str | None
) -> None:
    told = {"argument": argument, "requested target": target, "value": value}
    want = tuple((name, text) for name, text in told.items() if text is not None)
    assert question(argument=said).untrusted_facts == want


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(ask().replace(b"\0", b" "), id="no-nul"),
        pytest.param(b"policy.Ask\0{}", id="no-caller"),
        pytest.param(b"\0{}", id="no-header"),
        pytest.param(message(b"policy.Answer", ASK), id="unknown-service"),
        pytest.param(message(b"policy.Ask+x", ASK), id="service-with-argument"),
        pytest.param(message(b"device-agent.GUI", ASK), id="device-without-a-name"),
        *(pytest.param(device(**{key: None}), id=f"device-no-{key}") for key in DEVICE),
        *(pytest.param(device(**{key: 7}), id=f"device-{key}-no-text") for key in DEVICE),
        pytest.param(ask().replace(b" dom0 ", b" work ", 1), id="caller-is-a-qube"),
        pytest.param(HEADER, id="no-json"),
        pytest.param(HEADER + b"{", id="cut-json"),
        pytest.param(HEADER + b"[]", id="no-object"),
        pytest.param(HEADER + b"[" * 100_000, id="deep-json"),
        pytest.param(HEADER + b"1" * 100_000, id="huge-number"),
        pytest.param(ask() + b"{}", id="more-than-an-object"),
        pytest.param(ask() + b"\0", id="nul-after-it"),
        pytest.param(ask().replace(b"qubes.Filecopy", "qubes.Filec\u00f6py".encode()), id="not-ascii"),
        pytest.param(HEADER + b'{"source": "a", "source": "b"}', id="key-twice"),
        *(pytest.param(ask(**{key: None}), id=f"no-{key}") for key in ASK),
        *(pytest.param(ask(**{key: 7}), id=f"{key}-no-text") for key in ASK),
        pytest.param(ask(source=""), id="source-empty"),
        pytest.param(ask(source="a b"), id="source-blank"),
        pytest.param(ask(source="a\n"), id="source-line"),
        pytest.param(ask(source="<b>a</b>"), id="source-markup"),
        pytest.param(ask(source="@dispvm:a"), id="source-token"),
        pytest.param(ask(source="w\u043erk"), id="source-looks-like"),
        pytest.param(ask(source="a" * 32), id="source-long"),
        pytest.param(ask(service=""), id="service-empty"),
        pytest.param(ask(service="a+b"), id="service-plus"),
        pytest.param(ask(service="a\u202eb"), id="service-bidi"),
        pytest.param(ask(service="a\n"), id="service-line"),
        pytest.param(ask(service="a" * 129), id="service-long"),
        pytest.param(ask(argument="x"), id="argument-no-plus"),
        pytest.param(ask(argument="+a of b of c"), id="argument-two-targets"),
        pytest.param(ask(argument="+a of "), id="argument-empty-target"),
        pytest.param(ask(argument="+a  = b"), id="argument-two-blanks"),
        pytest.param(ask(argument="+a b"), id="argument-blank"),
        pytest.param(ask(targets=[]), id="no-target"),
        pytest.param(ask(targets=["vault", "vault"]), id="target-twice"),
        pytest.param(ask(targets=["vault", 1]), id="target-number"),
        pytest.param(ask(targets=["vault", "a\nb"]), id="target-line"),
        pytest.param(ask(targets=["vault", "<b>"]), id="target-markup"),
        pytest.param(ask(targets=["vault", "\u202evault"]), id="target-bidi"),
        pytest.param(ask(targets=["vault", ""]), id="target-empty"),
        pytest.param(ask(targets=[f"q{i}" for i in range(MAX_TARGETS + 1)]), id="too-many-targets"),
        pytest.param(ask(default_target="work"), id="default-no-target"),
        pytest.param(ask(icons={"vault": "../../x"}), id="icon-path"),
        pytest.param(ask(icons={"vault": None}), id="icon-null"),
        pytest.param(notify(resolution="ask"), id="note-resolution"),
        pytest.param(notify(resolution=None), id="note-without"),
        pytest.param(notify(source="a b"), id="note-source"),
        pytest.param(notify(service="<i>"), id="note-service"),
        pytest.param(notify(argument="x"), id="note-argument"),
        pytest.param(notify(target=None), id="note-target"),
    ],
)
def test_what_is_no_message(said: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        parse(said)
    text = str(caught.value)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 1_000


@given(st.binary() | st.builds(lambda body: HEADER + body, st.binary()))
def test_anything_else_is_no_message_either(said: bytes) -> None:
    with pytest.raises(MessageError):
        parse(said)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(ASK)), _JSON)
def test_whatever_one_key_holds_what_is_taken_is_plain(key: str, content: Any) -> None:
    try:
        found = parse(message(b"policy.Ask", ASK | {key: content}))
    except MessageError:
        return
    assert isinstance(found, Question)
    for name in (found.source, found.service or "", *found.targets, *found.icons.values()):
        assert name.isascii()
        assert name.isprintable()
        assert not set(name) & set(" <>&\\")
    assert found.default_target is None or found.default_target in found.targets


@pytest.mark.parametrize(
    ("target", "want"), [(None, b"deny"), ("vault", b"allow:vault"), ("@dispvm:a", b"allow:@dispvm:a")]
)
def test_answers(target: str | None, want: bytes) -> None:
    assert answer(target) == want
