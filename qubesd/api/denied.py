"""The device interfaces that may not be attached to a qube by hand (``spec/devices.md`` 2).

They are the value of its property ``devices_denied``, here one by one.
"""

from __future__ import annotations

from collections.abc import Mapping

from qubesd.api.method import DONE, Access, Command, Method, Need, Reply, Scope, Text, Unguarded
from qubesd.api.values import SINGLE, Canonical, Kind, Values
from qubesd.core.core import Core
from qubesd.core.settings import setting
from qubesd.errors import BadValue, ProtocolError
from qubesd.model.properties import find, read
from qubesd.model.state import Qube

_PROPERTY = "devices_denied"
_ALL = "all"
_LENGTH = 7
_MOST = 9_000
"""Codes of one qube: as many as a single call can set."""


def list_denied(core: Core, command: Command) -> Reply:
    return Text("\n".join(_codes(str(read(core, command.target, _PROPERTY).value))))


async def add(core: Core, command: Command) -> Reply:
    """Codes that are there already stay as they are."""
    before = _denied(core, command.target)
    return await _put(core, command.target, before, before | set(command.value))


async def remove(core: Core, command: Command) -> Reply:
    """Codes that are not there are passed over; ``None`` is all of them."""
    before = _denied(core, command.target)
    codes = before if command.value is None else set(command.value)
    return await _put(core, command.target, before, before - codes)


async def _put(core: Core, target: Qube, before: set[str], codes: set[str]) -> Reply:
    if len(codes) > _MOST:
        raise BadValue(f"a qube has at most {_MOST} denied interfaces")
    if codes != before:
        setting(core, target, _PROPERTY, "".join(sorted(codes))).apply()
        await core.durable()
    return DONE


def _denied(core: Core, target: Qube) -> set[str]:
    return set(_codes(str(read(core, core.current(target), _PROPERTY).value)))


def _codes(text: str) -> list[str]:
    return [text[start : start + _LENGTH] for start in range(0, len(text), _LENGTH)]


def _parse_codes(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> list[str]:
    """The codes, which stand one after the other.

    Raises:
        BadValue, BadPropertyValue: they are none.
        ProtocolError: one is given twice.
    """
    checked = find(target, _PROPERTY).coarse(untrusted_payload)
    untrusted_codes = _codes(str(checked))
    if len(set(untrusted_codes)) != len(untrusted_codes):
        raise ProtocolError("an interface code is given twice")
    find(target, _PROPERTY).check(core, target, checked)
    return untrusted_codes


def _parse_codes_or_all(
    core: Core, target: Qube, argument: str, untrusted_payload: bytes
) -> list[str] | None:
    if untrusted_payload == _ALL.encode():
        return None
    return _parse_codes(core, target, argument, untrusted_payload)


def _canonical(codes: list[str] | None) -> Mapping[str, Canonical]:
    return {SINGLE: _ALL if codes is None else "".join(sorted(codes)) or None}


_VALUES = Values({SINGLE: Kind.TEXT}, _canonical)
_ONE_VALUE = Unguarded("the one value that the call was judged for")
_EMPTY = Unguarded("the answer is empty")

METHODS = (
    Method("admin.vm.device.denied.List", list_denied, Scope.LOCAL, Access.READ, _ONE_VALUE),
    Method(
        "admin.vm.device.denied.Add",
        add,
        Scope.LOCAL,
        Access.WRITE,
        _EMPTY,
        payload=Need.OPTIONAL,
        parse=_parse_codes,
        values=_VALUES,
    ),
    Method(
        "admin.vm.device.denied.Remove",
        remove,
        Scope.LOCAL,
        Access.WRITE,
        _EMPTY,
        payload=Need.OPTIONAL,
        parse=_parse_codes_or_all,
        values=_VALUES,
    ),
)
