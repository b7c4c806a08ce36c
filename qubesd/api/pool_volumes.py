"""The volumes of a pool by vid (``spec/admin-calls.md`` 11, where the published page gives the contract).

Each call is that on the volume of the qube which has it; the vid stands in the payload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qubesd.api import volumes
from qubesd.api.imports import STREAM
from qubesd.api.method import (
    DONE,
    Access,
    Command,
    Destination,
    Handler,
    Method,
    Need,
    Parser,
    Reply,
    Scope,
    Text,
)
from qubesd.api.values import Canonical, Kind, Unspoken, Values, plain
from qubesd.core.core import Core
from qubesd.core.pools import pool_of
from qubesd.core.tokens import Copied
from qubesd.errors import NotSupported, PermissionDenied, ProtocolError
from qubesd.model.state import Qube, VolumeConfig


@dataclass(frozen=True, slots=True)
class On:
    """A vid, and what else the payload says."""

    vid: str
    value: Any = None


async def info(core: Core, command: Command) -> Reply:
    return await volumes.described(core, _found(core, command)[1])


async def list_snapshots(core: Core, command: Command) -> Reply:
    return await volumes.revisions(core, _found(core, command)[1])


async def snapshot(core: Core, command: Command) -> Reply:
    return Text(await core.volumes.snapshot(*_owned(core, command)))


async def revert(core: Core, command: Command) -> Reply:
    await core.volumes.revert(*_owned(core, command), command.value.value)
    return DONE


async def resize(core: Core, command: Command) -> Reply:
    await core.volumes.resize(*_owned(core, command), command.value.value)
    return DONE


async def set_revisions(core: Core, command: Command) -> Reply:
    await core.volumes.keep_revisions(*_owned(core, command), command.value.value)
    return DONE


def clone_from(core: Core, command: Command) -> Reply:
    """A token for the content of this volume."""
    qube, name = _owned(core, command)
    return Text(core.volumes.tokens.give(command.caller.uuid, Copied(qube.uuid, qube.name, name)))


async def clone_to(core: Core, command: Command) -> Reply:
    """The token is good no more after this, whatever comes of it."""
    copied = core.volumes.tokens.take(command.caller.uuid, command.value.value)
    await core.volumes.clone(*_owned(core, command), copied)
    return DONE


async def import_data(core: Core, command: Command) -> Reply:
    """The data, and nothing behind it up to the volume's size."""
    await core.volumes.replace(command.caller, *_owned(core, command), command.value.value)
    return DONE


def _found(core: Core, command: Command) -> tuple[Qube | None, VolumeConfig]:
    """The volume of that vid and the qube that has it, ``None`` for a kernel.

    Raises:
        PermissionDenied: there is no such volume in the pool.
    """
    pool, vid = pool_of(core, command.argument).name, command.value.vid
    for qube in _owners(core, pool, vid):
        for volume in core.storage.volumes(qube):
            if (volume.pool, volume.vid) == (pool, vid) and volume.name != "kernel":
                return qube, volume
    if vid in core.storage.pool(pool).kernels():
        return None, VolumeConfig("kernel", pool, vid)
    raise PermissionDenied("no such volume; list them with admin.pool.volume.List")


def _owners(core: Core, pool: str, vid: str) -> list[Qube]:
    """The qubes that have a volume of this vid, of those that are there for the core that was given."""
    found = core.owners.of((pool, vid)) if vid else ()
    return [core.system.qubes[name] for name in found if name in core.system.qubes]


def _owned(core: Core, command: Command) -> tuple[Qube, str]:
    """The qube and the name that it has for the volume."""
    qube, volume = _found(core, command)
    if qube is None:
        raise NotSupported("kernels are changed by installing others")
    return qube, volume.name


def owner(core: Core, command: Command) -> tuple[str, ...]:
    """The qube that has the volume."""
    return tuple(qube.name for qube in _owners(core, command.argument, command.value.vid))


def owner_and_copied(core: Core, command: Command) -> tuple[str, ...]:
    """The qube that has the volume, and the one whose volume is copied."""
    copied = core.volumes.tokens.look(command.caller.uuid, command.value.value)
    return owner(core, command) + (() if copied is None else (copied.qube,))


def _parse_vid(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> On:
    pool_of(core, argument)
    return On(_vid(untrusted_payload.strip()))


def _with(separator: bytes, parse: Callable[[bytes], Any]) -> Parser:
    """The vid, the separator, and what this parses."""

    def parsed(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> On:
        pool_of(core, argument)
        untrusted_vid, found, untrusted_rest = untrusted_payload.partition(separator)
        if not found:
            raise ProtocolError("the payload is a vid and what is to be done with it")
        return On(_vid(untrusted_vid), parse(untrusted_rest))

    return parsed


def _vid(untrusted_vid: bytes) -> str:
    """Any word; whether there is such a volume is looked up, and no path is made of this one."""
    try:
        return untrusted_vid.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("a vid is ASCII") from None


def _and(key: str, kind: Kind) -> Values:
    """The vid, and the other value by this key."""

    def canonical(value: On) -> Mapping[str, Canonical]:
        return {"vid": plain(value.vid), key: plain(value.value)}

    return Values({"vid": Kind.TEXT, key: kind}, canonical)


def _vid_alone(value: On) -> Mapping[str, Canonical]:
    return {"vid": plain(value.vid)}


_VID = Values({"vid": Kind.TEXT}, _vid_alone)


def _method(
    name: str,
    handler: Handler,
    access: Access,
    parse: Parser = _parse_vid,
    values: Values | Unspoken = _VID,
) -> Method:
    guard = volumes.EMPTY if parse is not _parse_vid else volumes.ONE_VOLUME
    touches = owner_and_copied if handler is clone_to else owner
    return Method(
        f"admin.pool.volume.{name}",
        handler,
        Scope.GLOBAL,
        access,
        guard,
        Destination.DOM0,
        argument=Need.REQUIRED,
        payload=Need.REQUIRED,
        parse=parse,
        values=values,
        touches=touches,
    )


METHODS = (
    _method("Info", info, Access.READ),
    _method("ListSnapshots", list_snapshots, Access.READ),
    _method("Snapshot", snapshot, Access.WRITE),
    _method("CloneFrom", clone_from, Access.WRITE),
    _method(
        "Revert",
        revert,
        Access.WRITE,
        _with(b" ", volumes.parse_revision),
        _and("revision", Kind.TEXT),
    ),
    _method("Resize", resize, Access.WRITE, _with(b" ", volumes.parse_size), _and("size", Kind.NUMBER)),
    _method("CloneTo", clone_to, Access.WRITE, _with(b" ", volumes.parse_token), volumes.TOKEN),
    _method(
        "Set.revisions_to_keep",
        set_revisions,
        Access.WRITE,
        _with(b" ", volumes.parse_revisions),
        _and("revisions_to_keep", Kind.NUMBER),
    ),
    _method("Import", import_data, Access.WRITE, _with(b"\n", bytes), STREAM),
)
