"""What a daemon of dom0 says to its agent: bytes to questions and notes, no sockets
(``spec/policy-daemon.md`` 3, ``spec/devices.md`` 8)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_MESSAGE = 1_048_576
"""Bytes; the icons of ten thousand qubes need no more."""

MAX_TARGETS = 4_096
"""Choices of one question."""

DENY = b"deny"

CALL = "Shall this call be made?"
DEVICE = "Shall this device be attached?"

_CALLER = b"dom0"
_QUBE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}")
_SERVICE = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_TARGET = re.compile(r"[A-Za-z0-9@_.:-]{1,100}")
_ICON = re.compile(r"[A-Za-z0-9_.-]{0,128}")
_ARGUMENT = re.compile(r"(?P<argument>\+[^ ]*)(?: of (?P<target>[^ ]+))?(?: = (?P<value>.*))?", re.DOTALL)
"""As text that stock daemons send, and with what ours tells of a call of the Admin API behind it. No argument
holds a blank, so nothing in one passes for that."""

_RESOLUTIONS = frozenset({"allow", "deny", "fail"})


class MessageError(ValueError):
    """The bytes are no message. Whoever sent them gets no answer, which denies; the text is for the log."""


@dataclass(frozen=True, slots=True)
class Question:
    """May this call be made, or this device be attached, and to which target?

    All but ``untrusted_facts`` holds plain characters only; these are texts that the caller wrote.

    Attributes:
        heading: what is asked.
        source: the qube that calls, or has the device.
        service: what it calls; ``None`` for a device.
        untrusted_facts: what else is told, each with its name.
        default_target: one of ``targets``; ``None`` for no default.
        icons: of a target, or of the source; not everyone is there, nor has everyone's a name.
    """

    heading: str
    source: str
    service: str | None
    untrusted_facts: tuple[tuple[str, str], ...]
    targets: tuple[str, ...]
    default_target: str | None
    icons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Note:
    """What came of a call: ``resolution`` is ``allow``, ``deny`` or ``fail``. The target is the one that an
    allow went to, and the caller's own words for a deny."""

    resolution: str
    source: str
    service: str
    untrusted_argument: str
    untrusted_target: str


def parse(untrusted_message: bytes) -> Question | Note:
    """Read all that came through one connection.

    Raises:
        MessageError: no header that ends with NUL, a service that is not ours, a caller that is not dom0, or
            no JSON object with what the service needs, each of the type and the characters that it has.
    """
    untrusted_header, nul, untrusted_body = untrusted_message.partition(b"\0")
    untrusted_words = untrusted_header.split(b" ")
    if not nul or len(untrusted_words) < 2:
        raise MessageError("no header that ends with NUL")
    untrusted_service, untrusted_caller = untrusted_words[:2]
    read = _SERVICES.get(untrusted_service)
    if read is None:
        raise MessageError(f"no service of an agent: {untrusted_service[:64]!r}")
    if untrusted_caller != _CALLER:
        raise MessageError(f"only dom0 asks, not {untrusted_caller[:64]!r}")
    return read(_object(untrusted_body))


def answer(target: str | None) -> bytes:
    """The answer to a question; ``None`` denies."""
    return DENY if target is None else b"allow:" + target.encode("ascii")


def _object(untrusted_body: bytes) -> dict[str, Any]:
    try:
        untrusted = json.loads(untrusted_body.decode("ascii"), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"no JSON: {str(error)[:200]}") from None
    if not isinstance(untrusted, dict):
        raise MessageError("no JSON object")
    return untrusted


def _without_repetition(untrusted_pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    untrusted = dict(untrusted_pairs)
    if len(untrusted) != len(untrusted_pairs):
        raise ValueError("a key is there twice")
    return untrusted


def _call(untrusted: dict[str, Any]) -> Question:
    parts = _ARGUMENT.fullmatch(_text(untrusted, "argument"))
    if parts is None:
        raise MessageError("'argument': expected '+', an argument without blanks, and what is told with it")
    untrusted_facts = (
        ("argument", None if parts["argument"] == "+" else parts["argument"]),
        ("requested target", parts["target"]),
        ("value", parts["value"]),
    )
    return _question(untrusted, CALL, _matched(untrusted, "service", _SERVICE), untrusted_facts)


def _device(untrusted: dict[str, Any]) -> Question:
    untrusted_facts = (
        ("device", _text(untrusted, "device_name")),
        ("port", _text(untrusted, "argument")),
    )
    return _question(untrusted, DEVICE, None, untrusted_facts)


def _question(
    untrusted: dict[str, Any],
    heading: str,
    service: str | None,
    untrusted_facts: tuple[tuple[str, str | None], ...],
) -> Question:
    targets = _targets(untrusted)
    default = _text(untrusted, "default_target")
    if default and default not in targets:
        raise MessageError("'default_target': not one of the targets")
    source = _matched(untrusted, "source", _QUBE)
    return Question(
        heading,
        source,
        service,
        tuple((name, text) for name, text in untrusted_facts if text is not None),
        targets,
        default or None,
        _icons(untrusted, {source, *targets}),
    )


def _note(untrusted: dict[str, Any]) -> Note:
    resolution = _text(untrusted, "resolution")
    if resolution not in _RESOLUTIONS:
        raise MessageError(f"'resolution': unknown: {resolution[:64]!a}")
    untrusted_argument = _text(untrusted, "argument")
    if not untrusted_argument.startswith("+"):
        raise MessageError("'argument': does not begin with '+'")
    return Note(
        resolution,
        _matched(untrusted, "source", _QUBE),
        _matched(untrusted, "service", _SERVICE),
        untrusted_argument,
        _text(untrusted, "target"),
    )


def _text(untrusted: dict[str, Any], key: str) -> str:
    untrusted_value = untrusted.get(key)
    if not isinstance(untrusted_value, str):
        raise MessageError(f"{key!r}: no text")
    return untrusted_value


def _matched(untrusted: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    untrusted_text = _text(untrusted, key)
    if pattern.fullmatch(untrusted_text) is None:
        raise MessageError(f"{key!r}: not a plain name: {untrusted_text[:64]!a}")
    return untrusted_text


def _targets(untrusted: dict[str, Any]) -> tuple[str, ...]:
    untrusted_targets = untrusted.get("targets")
    if not isinstance(untrusted_targets, list) or not 0 < len(untrusted_targets) <= MAX_TARGETS:
        raise MessageError(f"'targets': no list of 1 to {MAX_TARGETS}")
    for untrusted_target in untrusted_targets:
        if not isinstance(untrusted_target, str) or _TARGET.fullmatch(untrusted_target) is None:
            raise MessageError("'targets': not a plain target among them")
    if len(set(untrusted_targets)) != len(untrusted_targets):
        raise MessageError("'targets': one is there twice")
    return tuple(untrusted_targets)


def _icons(untrusted: dict[str, Any], wanted: set[str]) -> dict[str, str]:
    """Of those that are shown; the daemon sends everybody's."""
    untrusted_icons = untrusted.get("icons")
    if not isinstance(untrusted_icons, dict):
        raise MessageError("'icons': no object")
    icons = {name: icon for name, icon in untrusted_icons.items() if name in wanted}
    for icon in icons.values():
        if not isinstance(icon, str) or _ICON.fullmatch(icon) is None:
            raise MessageError("'icons': not the name of an icon among them")
    return icons


_SERVICES: dict[bytes, Callable[[dict[str, Any]], Question | Note]] = {
    b"policy.Ask": _call,
    b"policy.Notify": _note,
    b"device-agent.GUI": _device,
}
