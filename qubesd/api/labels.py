"""The labels (``spec/admin-calls.md`` 8)."""

from __future__ import annotations

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
from qubesd.api.values import Kind, one
from qubesd.core.core import Core
from qubesd.core.labels import create_label, label, remove_label
from qubesd.errors import InvalidLabelValue
from qubesd.model.names import check_color, check_label_name, check_new_label_name
from qubesd.model.state import Qube

_ONE_VALUE = Unguarded("the one value that the call was judged for")
_EMPTY = Unguarded("the answer is empty")


def list_labels(core: Core, command: Command) -> Reply:
    return Rows({name: f"{name}\n" for name in core.system.labels})


def get(core: Core, command: Command) -> Reply:
    return Text(label(core.system, command.value).color)


def index(core: Core, command: Command) -> Reply:
    return Text(str(label(core.system, command.value).index))


async def create(core: Core, command: Command) -> Reply:
    create_label(core, command.argument, command.value)
    await core.durable()
    return DONE


async def remove(core: Core, command: Command) -> Reply:
    remove_label(core, command.value)
    await core.durable()
    return DONE


def _parse_name(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> str:
    return check_label_name(argument)


def _parse_new(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> str:
    check_new_label_name(argument)
    try:
        return check_color(untrusted_payload.decode("ascii").strip())
    except UnicodeDecodeError:
        raise InvalidLabelValue("a colour is ASCII") from None


METHODS = (
    Method(
        "admin.label.List",
        list_labels,
        Scope.GLOBAL,
        Access.READ,
        NameRows("admin.label.Get"),
        Destination.DOM0,
    ),
    Method(
        "admin.label.Get",
        get,
        Scope.GLOBAL,
        Access.READ,
        _ONE_VALUE,
        Destination.DOM0,
        argument=Need.REQUIRED,
        parse=_parse_name,
    ),
    Method(
        "admin.label.Index",
        index,
        Scope.GLOBAL,
        Access.READ,
        _ONE_VALUE,
        Destination.DOM0,
        argument=Need.REQUIRED,
        parse=_parse_name,
    ),
    Method(
        "admin.label.Create",
        create,
        Scope.GLOBAL,
        Access.WRITE,
        _EMPTY,
        Destination.DOM0,
        argument=Need.REQUIRED,
        payload=Need.REQUIRED,
        parse=_parse_new,
        values=one(Kind.TEXT),
    ),
    Method(
        "admin.label.Remove",
        remove,
        Scope.GLOBAL,
        Access.WRITE,
        _EMPTY,
        Destination.DOM0,
        argument=Need.REQUIRED,
        parse=_parse_name,
    ),
)
