"""Lint says of errors what the loader says, and what it doubts is certain, whoever calls what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from policy_engine import CONFIGURED, RUNTIME, Loader, MemorySource, Request, World, decide, lint
from policy_engine.errors import quoted
from tests.policy_engine.catalogue import carried_out
from tests.policy_engine.delegated import DIALECT, policy_of
from tests.policy_engine.strategies_dialect import DEFINED, NAMES, Line, lines, requests, worlds

HEAD = "".join(f"!define {name} ({expression})\n" for name, expression in DEFINED.items())
FILE = f"{CONFIGURED}/1.policy"

_WORDS = (
    "* @anyvm a +x + s.A @tag: allow deny alow !define @x (a|@x) # $y notify=no target=b value=1 user qubes=1"
)
_words = st.sampled_from([*_WORDS.split(), "!dialect", "delegation-1", "!limit", "\t", "\r", "\xa0"])
_texts = st.lists(st.lists(st.one_of(_words, st.text(max_size=6)), max_size=7).map(" ".join), max_size=6)


@given(_texts, st.sampled_from(["", DIALECT]))
def test_the_errors_are_those_of_the_loader(texts: Sequence[str], head: str) -> None:
    content = (head + "\n".join(texts)).encode("utf-8", "replace")
    errors = [(one.line, one.kind) for one in lint(content, carried_out) if one.severity == "error"]
    loader = Loader(MemorySource({FILE: content}, [RUNTIME]), catalogue=carried_out)
    assert errors == [(error.line or 0, error.kind) for error in loader.check()]


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_get_an_answer(content: bytes, legacy: bool) -> None:
    assert all(finding.message for finding in lint(content, carried_out, legacy=legacy))


def without_uuids(world: World) -> World:
    """Those that are drawn have not the form of uuids."""
    return World.of(qube if qube.name == "dom0" else replace(qube, uuid=None) for qube in world)


@settings(max_examples=60)
@given(st.lists(lines, min_size=4, max_size=8), worlds.map(without_uuids), requests, st.sampled_from(NAMES))
def test_a_rule_that_is_doubted_decides_nothing(
    drawn: list[Line], world: World, requests: list[Request], caller: str
) -> None:
    written = [(words, action) for words, action in drawn]
    written.append((("s.A", "*", caller, "@tag:by-{source}_x|{source}_b"), "allow"))
    text = HEAD + "".join(f"{' '.join(words)} {action}\n" for words, action in written)
    doubts: dict[int, list[str]] = {}
    for finding in lint((DIALECT + text).encode(), carried_out):
        doubts.setdefault(finding.line, []).append(finding.message)
    dead = []
    for rule in policy_of(text).rules:
        assert rule.line is not None
        words = written[rule.line - len(DEFINED) - 2][0]
        ends = tuple(f"{quoted(field)} matches nothing" for field in words[2:])
        if any(message.startswith(("never reached", *ends)) for message in doubts.get(rule.line, ())):
            dead.append(rule)
    policy = policy_of(text)
    for request in requests if dead else ():
        assert decide(policy, request, world).rule not in dead
