"""The tags of qubes (``spec/admin-calls.md`` 4)."""

from __future__ import annotations

from qubesd.api.method import (
    DONE,
    Access,
    Command,
    Handler,
    Method,
    NameRows,
    Need,
    Reply,
    Rows,
    Scope,
    Text,
    Unguarded,
)
from qubesd.core.core import Core
from qubesd.core.tags import CREATED_BY, ORIGINS, add_tag, remove_tag
from qubesd.errors import PermissionDenied
from qubesd.model.names import check_tag
from qubesd.model.state import Klass, Qube

_ONE_VALUE = Unguarded("the one value that the call was judged for")
_EMPTY = Unguarded("the answer is empty")


def list_tags(core: Core, command: Command) -> Reply:
    return Rows({tag: f"{tag}\n" for tag in sorted(command.target.tags)})


def get(core: Core, command: Command) -> Reply:
    return Text("1" if command.value in command.target.tags else "0")


async def set_(core: Core, command: Command) -> Reply:
    _refuse_origin(command)
    add_tag(core, command.target, command.value)
    await core.durable()
    return DONE


async def remove(core: Core, command: Command) -> Reply:
    _refuse_origin(command)
    remove_tag(core, command.target, command.value)
    await core.durable()
    return DONE


def _refuse_origin(command: Command) -> None:
    """Who made a qube is a fact that policies build on; only dom0 corrects it."""
    if command.value.startswith(CREATED_BY) and command.caller.klass is not Klass.ADMIN:
        raise PermissionDenied("only dom0 changes tags that say who created a qube")


def _alters(argument: str) -> str:
    """The qubes that a tag stands for."""
    return f"@tag:{argument}"


def _is_origin(argument: str) -> bool:
    """`created-by-*` and `disp-created-by-*`, which say who made a qube."""
    return argument.startswith(ORIGINS)


def _parse(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> str:
    return check_tag(argument)


def _writing(name: str, handler: Handler) -> Method:
    return Method(
        f"admin.vm.tag.{name}",
        handler,
        Scope.LOCAL,
        Access.WRITE,
        _EMPTY,
        argument=Need.REQUIRED,
        parse=_parse,
        alters=_alters,
        reserved=_is_origin,
    )


METHODS = (
    Method("admin.vm.tag.List", list_tags, Scope.LOCAL, Access.READ, NameRows("admin.vm.tag.Get")),
    Method(
        "admin.vm.tag.Get",
        get,
        Scope.LOCAL,
        Access.READ,
        _ONE_VALUE,
        argument=Need.REQUIRED,
        parse=_parse,
    ),
    _writing("Set", set_),
    _writing("Remove", remove),
)
