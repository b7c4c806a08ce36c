"""Devices of qubes (``spec/admin-calls.md`` 10, ``spec/devices.md`` 5)."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from qubesd.api.method import (
    DONE,
    Access,
    Command,
    DeviceRows,
    Handler,
    Mention,
    Method,
    Need,
    Parser,
    Reply,
    Rows,
    Scope,
    Unguarded,
)
from qubesd.api.numbers import truth
from qubesd.api.values import SINGLE, Canonical, Keys, Kind, Names, Values, plain
from qubesd.core import assignments, block
from qubesd.core.core import Core
from qubesd.errors import BadValue, DeviceNotFound, NoSuchMode, NoSuchQube, ProtocolError
from qubesd.model import forms
from qubesd.model.device_text import (
    assignment_line,
    device_line,
    parse_identity,
    parse_port,
    parse_properties,
    parse_wanted,
)
from qubesd.model.devices import CLASSES, MANUAL, MODES, Device, Wanted
from qubesd.model.state import Assignment, Qube

_EMPTY = Unguarded("the answer is empty")


@dataclass(frozen=True, slots=True)
class On:
    """The device that a call is about, and what is to be done with it."""

    wanted: Wanted
    mode: str = MANUAL
    options: Mapping[str, str] = field(default_factory=dict)
    flag: bool = False


async def available(devclass: str, core: Core, command: Command) -> Reply:
    """The port alone may be asked for; what the qube that has a device is called is for those who see it."""
    rows, mentions = {}, {}
    for device in await core.devices.exposed(command.target, devclass):
        if command.value in (None, device.port):
            key, frontend = _key(device), core.devices.holder(device)
            rows[key] = device_line(device, frontend)
            if frontend is not None:
                mentions[key] = Mention(frontend, device_line(device, None))
    return Rows(dict(sorted(rows.items())), mentions)


def assigned(devclass: str, core: Core, command: Command) -> Reply:
    return _rows(core, assignments.of_class(command.target, devclass), command.value)


def attached(devclass: str, core: Core, command: Command) -> Reply:
    return _rows(core, _now(core, command.target, devclass), command.value)


def list_old(devclass: str, core: Core, command: Command) -> Reply:
    """Attached and assigned devices in the form of 2017, ``persistent`` saying which are stored."""
    stored = assignments.of_class(command.target, devclass)
    now = [one for one in _now(core, command.target, devclass) if not _among(one, stored)]
    rows = {_key(one): _old_line(one, one in stored) for one in (*stored, *now)}
    return Rows(dict(sorted(rows.items())))


async def assign(devclass: str, core: Core, command: Command) -> Reply:
    value: On = command.value
    await assignments.assign(core, command.target, devclass, value.wanted, value.mode, value.options)
    return DONE


async def unassign(devclass: str, core: Core, command: Command) -> Reply:
    await assignments.unassign(core, command.target, devclass, command.value.wanted)
    return DONE


async def set_assignment(devclass: str, core: Core, command: Command) -> Reply:
    await assignments.set_mode(core, command.target, devclass, command.value.wanted, command.value.mode)
    return DONE


async def set_persistent(devclass: str, core: Core, command: Command) -> Reply:
    """Whether the device is to be attached by itself."""
    wanted = command.value.wanted
    known = assignments.find(core.current(command.target), devclass, wanted)
    if not command.value.flag:
        await assignments.unassign(core, command.target, devclass, wanted)
    elif known is None:
        await assignments.assign(core, command.target, devclass, wanted, "auto-attach", {})
    return DONE


async def set_required(devclass: str, core: Core, command: Command) -> Reply:
    """Whether the qube may start without the device."""
    wanted = command.value.wanted
    mode = "required" if command.value.flag else "auto-attach"
    if assignments.find(core.current(command.target), devclass, wanted) is None and command.value.flag:
        await assignments.assign(core, command.target, devclass, wanted, mode, {})
    else:
        await assignments.set_mode(core, command.target, devclass, wanted, mode)
    return DONE


async def attach(devclass: str, core: Core, command: Command) -> Reply:
    value: On = command.value
    await core.devices.attach(command.target, devclass, value.wanted, value.mode, value.options)
    return DONE


async def detach(devclass: str, core: Core, command: Command) -> Reply:
    await core.devices.detach(command.target, devclass, command.value.wanted)
    return DONE


async def with_backend(handler: Handler, core: Core, command: Command) -> Reply:
    """Do what is asked where the qube that is to expose the device is there.

    Asked of the core that the handler gets, for which a hidden qube is an absent one.

    Raises:
        NoSuchQube: nobody is called like that.
    """
    name = command.value.wanted.backend
    if name not in core.system.qubes:
        raise NoSuchQube(f"no such domain: {name!r}")
    reply = handler(core, command)
    return await reply if isinstance(reply, Awaitable) else reply


def backend(core: Core, command: Command) -> tuple[str, ...]:
    """The qube that exposes the device."""
    return (command.value.wanted.backend,)


def asked_backend(core: Core, command: Command) -> tuple[str, ...]:
    """The qube whose device is asked for."""
    return () if command.value is None else (command.value.backend,)


def _now(core: Core, qube: Qube, devclass: str) -> list[Assignment]:
    """What is attached, with the mode and options of the assignment of exactly that, if there is one."""
    stored = assignments.of_class(qube, devclass)
    found = []
    for attachment in core.devices.attached(qube, devclass):
        device = attachment.device
        same = [one for one in stored if (one.port, one.identity) == (device.port, device.identity)]
        now = replace(attachment.assignment, port=device.port, identity=device.identity, mode=MANUAL)
        found.append(same[0] if same else now)
    return found


def _among(one: Assignment, others: Iterable[Assignment]) -> bool:
    return any((one.backend, one.port) == (other.backend, other.port) for other in others)


def _rows(core: Core, found: Iterable[Assignment], wanted: Wanted | None) -> Rows:
    """Those of the port that was asked for; nothing of a backend that is not there, or not for the caller."""
    chosen = list(found)
    if wanted is not None:
        there = wanted.backend in core.system.qubes
        chosen = [one for one in chosen if there and (one.backend, one.port) == (wanted.backend, wanted.port)]
        if len(chosen) > 1:
            raise DeviceNotFound("more than one device is meant by this port")
    return Rows(dict(sorted((_key(one), assignment_line(one)) for one in chosen)))


def _old_line(one: Assignment, stored: bool) -> str:
    options = {**one.options, "persistent": str(stored)}
    words = " ".join(f"{name}={value}" for name, value in options.items())
    return f"{one.backend}+{one.port} {words}\n"


def _key(one: Device | Assignment) -> str:
    return f"{one.backend}+{one.port}:{one.identity}"


def _parse_port(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> str | None:
    return parse_port(argument) if argument else None


def _parse_filter(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> Wanted | None:
    return parse_wanted(argument) if argument else None


def _parse_device(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> On:
    return On(parse_wanted(argument))


def _parse_flag(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> On:
    return On(parse_wanted(argument), flag=truth(untrusted_payload))


def _parse_mode(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> On:
    wanted = parse_wanted(argument)
    mode = next((mode for mode in MODES if mode.encode() == untrusted_payload), None)
    if mode is None:
        raise NoSuchMode(f"expected one of {', '.join(MODES)}")
    return On(wanted, mode)


def _parse_wish(devclass: str, core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> On:
    """The device of the argument, with the mode and the options of the payload, which must agree with it."""
    wanted = parse_wanted(argument)
    given = parse_properties(untrusted_payload)
    options = {name[1:]: given.pop(name) for name in list(given) if name.startswith("_") and name != "_"}
    identity = given.pop("device_id", None)
    if identity is not None and wanted.identity == "*":
        wanted = replace(wanted, identity=parse_identity(identity))
    mode = given.pop("mode", MANUAL)
    if mode not in (MANUAL, *MODES):
        raise ProtocolError(f"expected a mode of {', '.join((MANUAL, *MODES))}")
    frontend = given.pop("frontend_domain", target.name)
    agreed = {"port_id": wanted.port, "devclass": devclass, "backend_domain": wanted.backend}
    if frontend != target.name or identity not in (None, wanted.identity):
        raise ProtocolError("the payload is about another device or another qube than the call")
    for name, value in given.items():
        if agreed.get(name) != value:
            raise ProtocolError(f"property {name[:32]!r} is not known, or not that of the argument")
    if (wanted.port, wanted.identity) == ("*", "*"):
        raise BadValue("either the port or the identity must be given")
    return On(wanted, mode, options)


def _given_wish(value: On) -> Mapping[str, Canonical]:
    """The mode, by default ``manual``, and each option."""
    return {"mode": value.mode, **{f"_{name}": _option(name, text) for name, text in value.options.items()}}


def _option(name: str, text: str) -> Canonical:
    """All words for true and for false are one value."""
    if name == "read-only":
        try:
            return plain(forms.boolean(text.encode()))
        except BadValue:
            pass  # whoever carries it out refuses it as well
    return plain(text)


def _given_mode(value: On) -> Mapping[str, Canonical]:
    return {SINGLE: value.mode}


def _given_flag(value: On) -> Mapping[str, Canonical]:
    return {SINGLE: plain(value.flag)}


_MODE = Values({SINGLE: Kind.TEXT}, _given_mode)
_FLAG = Values({SINGLE: Kind.TEXT}, _given_flag)


def _wish_keys(devclass: str) -> Keys:
    options = block.OPTIONS if devclass == "block" else ()
    return dict.fromkeys(("mode", *(f"_{name}" for name in options)), Kind.TEXT)


def _methods(devclass: str) -> Iterable[Method]:
    service = f"admin.vm.device.{devclass}"
    rows = DeviceRows(f"{service}.Available")
    wish: Parser = partial(_parse_wish, devclass)
    wishes = Values(_wish_keys(devclass), _given_wish)
    for name, lister, parser in (
        ("Available", available, _parse_port),
        ("Assigned", assigned, _parse_filter),
        ("Attached", attached, _parse_filter),
        ("List", list_old, _parse_filter),
    ):
        handler = partial(lister, devclass)
        argument = Need.FORBIDDEN if name == "List" else Need.OPTIONAL
        filters = name in ("Assigned", "Attached")
        yield Method(
            f"{service}.{name}",
            handler,
            Scope.LOCAL,
            Access.READ,
            rows,
            argument=argument,
            parse=parser,
            names=Names.DEVICE if filters else Names.NOTHING,
            touches=asked_backend if filters else None,
        )
    for name, verb, access, payload, parse, values in (
        ("Assign", assign, Access.WRITE, Need.REQUIRED, wish, wishes),
        ("Unassign", unassign, Access.WRITE, Need.FORBIDDEN, _parse_device, None),
        ("Set.assignment", set_assignment, Access.WRITE, Need.REQUIRED, _parse_mode, _MODE),
        ("Set.persistent", set_persistent, Access.WRITE, Need.REQUIRED, _parse_flag, _FLAG),
        ("Set.required", set_required, Access.WRITE, Need.REQUIRED, _parse_flag, _FLAG),
        ("Attach", attach, Access.EXECUTE, Need.OPTIONAL, wish, wishes),
        ("Detach", detach, Access.EXECUTE, Need.FORBIDDEN, _parse_device, None),
    ):
        yield Method(
            f"{service}.{name}",
            partial(with_backend, partial(verb, devclass)),
            Scope.LOCAL,
            access,
            _EMPTY,
            argument=Need.REQUIRED,
            payload=payload,
            parse=parse,
            names=Names.DEVICE,
            values=values,
            touches=backend,
        )


METHODS = tuple(method for devclass in CLASSES for method in _methods(devclass))
