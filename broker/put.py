"""How a call of the Admin API is put to the user: in the stock question, whose ``argument`` an agent shows as
it is, with what the call is about and what it brings behind it.

``+netvm of work = sys-net``: an argument cannot hold a blank, so nothing in it can look like the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from policy_engine import Asked
from qubesd.api.method import Method
from qubesd.api.values import SINGLE, Canonical, Values

_LONGEST = 160
"""Characters of a value that are shown; it is cut, and a digest tells two such values apart."""


def put(argument: str, asked: Asked, about: str, brings: str) -> str:
    """The text that stands for the argument.

    Args:
        argument: without the ``+``.
        about: the qube that the call is about, by name.
        brings: what ``told`` makes of the payload; empty for none.
    """
    text = "+" + argument
    if about not in asked.targets:
        text += f" of {about}"
    return f"{text} = {brings}" if brings else text


def told(method: Method, value: object, untrusted_payload: bytes) -> str:
    """A payload in printable ASCII: the values that its handler gets, where the method can tell them; else
    the bytes as they came. ``none`` for an empty value, no text at all where there is no payload."""
    if isinstance(method.values, Values):
        return _cut(_listed(method.values.canonical(value)), untrusted_payload)
    return _cut(_harmless(untrusted_payload.decode("utf-8", "backslashreplace")), untrusted_payload)


def _listed(values: Mapping[str, Canonical]) -> str:
    return " ".join(
        _plain(value) if key == SINGLE else f"{_harmless(key)}={_plain(value)}"
        for key, value in values.items()
    )


def _plain(value: Canonical) -> str:
    return "none" if value is None else _harmless(str(value))


def _harmless(untrusted_text: str) -> str:
    """Printable ASCII; whatever is not is escaped, and so is the sign that escapes."""
    return untrusted_text.encode("unicode_escape").decode("ascii")


def _cut(text: str, untrusted_payload: bytes) -> str:
    if len(text) <= _LONGEST:
        return text
    digest = sha256(untrusted_payload).hexdigest()[:16]
    return f"{text[:_LONGEST]}... ({len(untrusted_payload)} bytes, sha256 {digest}...)"
