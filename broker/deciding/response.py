"""The policy daemon's response, read no less strictly than by the C qrexec daemon, which obeys what it gets
(``spec/policy-daemon.md`` 1.2)."""

from __future__ import annotations

from collections.abc import Mapping

ALLOW, DENY = "result=allow", "result=deny"

MAX_RESPONSE = 4_095
"""Bytes of a response that the C qrexec daemon takes."""

_ALLOW_NEEDS = frozenset({"user", "target", "requested_target", "autostart"})


class Refused(Exception):
    """The call is denied; the text says why, for the log."""


def fields_of(response: str) -> Mapping[str, str]:
    """The lines of a response by their keys. Raises ``Refused`` where the C qrexec daemon refuses it."""
    if len(response) > MAX_RESPONSE or not response.isascii():
        raise Refused("a response that is too long or not ASCII")
    fields: dict[str, str] = {}
    for line in response.split("\n"):
        key, equals, value = line.partition("=")
        if not equals or not line.isprintable() or key in fields:
            raise Refused(f"a response with the line {line[:80]!a}")
        fields[key] = value
    present = _ALLOW_NEEDS & fields.keys()
    match fields.get("result"):
        case "allow" if present == _ALLOW_NEEDS and fields["autostart"] in ("True", "False"):
            return fields
        case "deny" if not present:
            return fields
    raise Refused(f"a malformed response: {response[:80]!a}")
