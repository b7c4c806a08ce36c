"""The properties of qubes and the global ones (``spec/admin-calls.md`` 3).

Both families have the same methods: ``admin.vm.property.*`` asks about the destination, ``admin.property.*``,
which goes to dom0, about the system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from qubesd.api.method import (
    DONE,
    Access,
    Command,
    Destination,
    Method,
    NameRows,
    Need,
    Reply,
    Rows,
    Scope,
    Text,
    Unguarded,
)
from qubesd.api.values import SINGLE, Keys, Kind, Values, alone
from qubesd.core.core import Core
from qubesd.core.draft import Draft
from qubesd.core.reconnect import reconnect, wired_to
from qubesd.core.settings import resetting, setting
from qubesd.core.tags import TRACKED
from qubesd.model.properties import GLOBALS, Property, Reading, find, read, read_default, table, text
from qubesd.model.references import find_label
from qubesd.model.state import Klass, Qube

_SYSTEM = "admin.property"
_QUBE = "admin.vm.property"

_ONE_VALUE = Unguarded("the one value that the call was judged for")
_HELP = Unguarded("the same constant for everybody")
_EMPTY = Unguarded("the answer is empty")


def _owner(command: Command) -> Qube | None:
    """Whose property it is: the destination's, or the system's."""
    return command.target if command.service.startswith(_QUBE) else None


def _names(owner: Qube | None) -> Iterable[str]:
    return GLOBALS if owner is None else table(owner.klass)


def _shown(type_: str, reading: Reading) -> str:
    return f"default={reading.is_default} type={type_} {text(reading.value)}"


def list_properties(core: Core, command: Command) -> Reply:
    return Rows({name: f"{name}\n" for name in _names(_owner(command))})


def get_property(core: Core, command: Command) -> Reply:
    owner = _owner(command)
    reading = read(core, owner, command.argument)
    return Text(_shown(find(owner, command.argument).type, reading))


def get_all_properties(core: Core, command: Command) -> Reply:
    owner = _owner(command)
    rows = {}
    for name in _names(owner):
        shown = _shown(find(owner, name).type, read(core, owner, name))
        escaped = shown.replace("\\", "\\\\").replace("\n", "\\n")
        rows[name] = f"{name} {escaped}\n"
    return Rows(rows)


def get_default(core: Core, command: Command) -> Reply:
    """Empty content says that there is no default at all."""
    owner = _owner(command)
    reading = read_default(core, owner, command.argument)
    if not reading.has_value:
        return Text("")
    return Text(f"type={find(owner, command.argument).type} {text(reading.value)}")


def get_help(core: Core, command: Command) -> Reply:
    """One line of plain text, which is the same in reStructuredText."""
    return Text(find(_owner(command), command.argument).doc)


async def set_property(core: Core, command: Command) -> Reply:
    owner = _owner(command)
    return await _change(core, command, partial(setting, core, owner, command.argument, command.value))


async def reset_property(core: Core, command: Command) -> Reply:
    owner = _owner(command)
    return await _change(core, command, partial(resetting, core, owner, command.argument))


async def _change(core: Core, command: Command, make: Callable[[], Draft]) -> Reply:
    moved = wired_to(core, _owner(command), command.argument)
    if moved:
        await reconnect(core, moved, make)
    else:
        make().apply()
    await core.durable()
    return DONE


def _parse_value(
    owner_of: Callable[[Qube], Qube | None], core: Core, target: Qube, argument: str, untrusted_payload: bytes
) -> object:
    """The coarse step: a value of the property's type, an index of a label as its name; whether it may be
    set is told by the handler."""
    line = find(owner_of(target), argument)
    value = line.coarse(untrusted_payload)
    label = find_label(core.system.labels, str(value)) if line.type == "label" else None
    return value if label is None else label.name


def _named_qube(core: Core, command: Command) -> tuple[str, ...]:
    """The qube that a property is set to."""
    return _if_qube(command, command.value)


def _default_qube(core: Core, command: Command) -> tuple[str, ...]:
    """The qube that a property falls back to."""
    return _if_qube(command, read_default(core, _owner(command), command.argument).value)


def _if_qube(command: Command, value: object) -> tuple[str, ...]:
    is_qube = find(_owner(command), command.argument).type == "vm"
    return (str(value),) if is_qube and value is not None else ()


def _form(known: Mapping[str, Property], argument: str) -> Keys | None:
    """One value of the property's type."""
    line = known.get(argument)
    if line is None:
        return None
    return {SINGLE: Kind.MEBIBYTES if argument in _MEMORY else _KINDS.get(line.type, Kind.TEXT)}


def _alters(argument: str) -> str | None:
    """`label`, `template`, and who shows, plays or relays for a qube."""
    return _ALTERED.get(argument)


_MEMORY = frozenset({"memory", "maxmem"})
_KINDS = {"vm": Kind.QUBE, "int": Kind.NUMBER}
_ALTERED = {
    "label": "@label",
    "template": "@template",
    **dict.fromkeys(TRACKED, "@served-by"),
    # They serve every qube that has none of its own.
    **dict.fromkeys((f"default_{name}" for name in TRACKED), "@served-by"),
}
_OF_QUBES = {name: line for klass in Klass for name, line in table(klass).items()}
"""A property has the same type in every class that has it."""


def _family(
    prefix: str,
    scope: Scope,
    destination: Destination,
    owner_of: Callable[[Qube], Qube | None],
    known: Mapping[str, Property],
) -> tuple[Method, ...]:
    method = partial(Method, scope=scope, destination=destination)
    reading = partial(method, access=Access.READ, argument=Need.REQUIRED)
    writing = partial(method, access=Access.WRITE, argument=Need.REQUIRED, guard=_EMPTY, alters=_alters)
    rows = NameRows(f"{prefix}.Get")
    return (
        method(f"{prefix}.List", list_properties, access=Access.READ, guard=rows),
        method(f"{prefix}.GetAll", get_all_properties, access=Access.READ, guard=rows),
        reading(f"{prefix}.Get", get_property, guard=_ONE_VALUE),
        reading(f"{prefix}.GetDefault", get_default, guard=_ONE_VALUE),
        reading(f"{prefix}.Help", get_help, guard=_HELP),
        reading(f"{prefix}.HelpRst", get_help, guard=_HELP),
        writing(
            f"{prefix}.Set",
            set_property,
            payload=Need.OPTIONAL,
            parse=partial(_parse_value, owner_of),
            values=Values(partial(_form, known), alone),
            touches=_named_qube,
        ),
        writing(f"{prefix}.Reset", reset_property, touches=_default_qube),
    )


METHODS = (
    *_family(_SYSTEM, Scope.GLOBAL, Destination.DOM0, lambda target: None, GLOBALS),
    *_family(_QUBE, Scope.LOCAL, Destination.ANY, lambda target: target, _OF_QUBES),
)
