"""Devices and assignments as text on the wire (``spec/devices.md`` 3 and 4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from qubesd.errors import ProtocolError
from qubesd.model.devices import ANY, UNKNOWN_INTERFACE, Device, Wanted
from qubesd.model.names import check_qube_name
from qubesd.model.state import Assignment

_PORT = re.compile(r"[A-Za-z0-9._\-]{1,128}", re.ASCII)
_IDENTITY = re.compile(r"[!-~]{1,256}", re.ASCII)
_KEY = re.compile(r"""[!#-&(-<>-_a-~]{1,128}""", re.ASCII)
"""ASCII letters, digits and punctuation without quotes, ``=`` and back quotes."""
_UNSAFE = re.compile(r"[^ -~]")
_NOT_IN_WORDS = re.compile(r"[^!-~]")
_NOT_IN_KEYS = re.compile(r"""[^!#-&(-<>-_a-~]""")
_MOST = 64
"""Properties in one payload."""


def parse_wanted(untrusted_argument: str) -> Wanted:
    """The device that an argument ``BACKEND+PORT[+IDENTITY]`` names; the backend need not exist.

    Raises:
        ProtocolError: it names none.
        BadValue: the backend's name is none.
    """
    untrusted_backend, plus, untrusted_rest = untrusted_argument.partition("+")
    if not plus:
        raise ProtocolError("a device is named BACKEND+PORT, or BACKEND+PORT+IDENTITY")
    untrusted_port, colon, untrusted_identity = untrusted_rest.replace("+", ":").partition(":")
    return Wanted(
        check_qube_name(untrusted_backend),
        ANY if untrusted_port == "_" else parse_port(untrusted_port),
        parse_identity(untrusted_identity) if colon else ANY,
    )


def parse_port(untrusted_port: str) -> str:
    if _PORT.fullmatch(untrusted_port) is None:
        raise ProtocolError("a port is made of letters, digits, '.', '_' and '-'")
    return untrusted_port


def parse_identity(untrusted_identity: str) -> str:
    """The identity of a device, ``_`` for any."""
    if untrusted_identity == "_":
        return ANY
    identity = untrusted_identity.replace("_" * len(UNKNOWN_INTERFACE), UNKNOWN_INTERFACE)
    if _IDENTITY.fullmatch(identity) is None:
        raise ProtocolError("the identity of a device is made of visible ASCII characters")
    return identity


def parse_properties(untrusted_payload: bytes) -> dict[str, str]:
    """The properties ``KEY='VALUE'`` of a payload, each key once.

    Raises:
        ProtocolError: it is something else.
    """
    try:
        untrusted_text = untrusted_payload.decode("ascii").strip(" ")
    except UnicodeDecodeError:
        raise ProtocolError("the properties of a device are ASCII") from None
    found: dict[str, str] = {}
    while untrusted_text:
        untrusted_key, quote, untrusted_rest = untrusted_text.partition("='")
        if not quote or _KEY.fullmatch(untrusted_key) is None or untrusted_key in found:
            raise ProtocolError("the payload is pairs KEY='VALUE' with blanks between them, each key once")
        # A value ends at the last quote before the next key, so that it may hold escaped ones.
        untrusted_next = untrusted_rest.find("='")
        last = untrusted_next < 0
        end = len(untrusted_rest) - 1 if last else untrusted_rest.rfind("' ", 0, untrusted_next)
        if end < 0 or untrusted_rest[end] != "'":
            raise ProtocolError(f"the value of {untrusted_key!r} does not end with a quote")
        untrusted_value = untrusted_rest[:end]
        if _UNSAFE.search(untrusted_value):
            raise ProtocolError(f"the value of {untrusted_key!r} holds control characters")
        found[untrusted_key] = untrusted_value.replace("\\'", "'")
        untrusted_text = untrusted_rest[end + 1 :].lstrip(" ")
        if len(found) > _MOST:
            raise ProtocolError(f"more than {_MOST} properties")
    return found


def device_line(device: Device, frontend: str | None) -> str:
    """A line of Available; ``frontend`` is the qube that has it, ``None`` for none."""
    known = {
        "vendor": device.vendor,
        "product": device.product,
        "manufacturer": device.manufacturer,
        "name": device.name,
        "serial": device.serial,
    }
    pairs = {
        **_identity(device.devclass, device.backend, device.port, device.identity),
        **{key: value for key, value in known.items() if value},
        **({} if frontend is None else {"attachment": frontend}),
        "interfaces": device.interfaces,
        **_parent(device),
        **{f"_{key}": value for key, value in device.data.items()},
    }
    return f"{_word(device.port)}:{_word(device.identity)} {_text(pairs.items())}\n"


def assignment_line(assignment: Assignment) -> str:
    """A line of Assigned and of Attached."""
    head = f"{assignment.backend}+{_word(assignment.port)}:{_word(assignment.identity)}"
    pairs = {
        **_identity(assignment.devclass, assignment.backend, assignment.port, assignment.identity),
        "mode": assignment.mode,
        **{f"_{key}": value for key, value in assignment.options.items()},
    }
    return f"{head} {_text(pairs.items())}\n"


def safe(untrusted_text: str) -> str:
    """With ``_`` for what must not go out; names of devices come from guests."""
    return _UNSAFE.sub("_", untrusted_text)


def _identity(devclass: str, backend: str, port: str, identity: str) -> Mapping[str, str]:
    return {"device_id": identity, "port_id": port, "devclass": devclass, "backend_domain": backend}


def _parent(device: Device) -> Mapping[str, str]:
    if device.parent is None:
        return {}
    return {"parent_port_id": device.parent[0], "parent_devclass": device.parent[1]}


def _text(pairs: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"{_NOT_IN_KEYS.sub('_', key)}='{_quoted(value)}'" for key, value in pairs)


def _word(text: str) -> str:
    """In the head of a line, which ends at its first blank; a stored file may hold anything."""
    return _NOT_IN_WORDS.sub("_", text)


def _quoted(value: str) -> str:
    return safe(value).replace("'", "\\'")
