"""The volumes of a qube (``spec/admin-calls.md`` 6)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from qubesd.api.method import (
    DONE,
    Access,
    Command,
    Method,
    NameRows,
    Need,
    Reply,
    Rows,
    Scope,
    Text,
    Unguarded,
)
from qubesd.api.numbers import number, truth
from qubesd.api.values import Kind, Unspoken, Values, one
from qubesd.core.core import Core
from qubesd.core.tokens import Copied
from qubesd.core.volume_records import volume_of
from qubesd.errors import ProtocolError
from qubesd.model.state import Qube, VolumeConfig
from qubesd.model.volumes import is_ephemeral

_REVISION = re.compile(r"[A-Za-z0-9:\-_.]{1,128}", re.ASCII)

ONE_VOLUME = Unguarded("about the one volume that the call was judged for")
EMPTY = Unguarded("the answer is empty")
TOKEN = Unspoken("a token, good once")


def list_volumes(core: Core, command: Command) -> Reply:
    return Rows({name: f"{name}\n" for name in command.target.volumes})


async def info(core: Core, command: Command) -> Reply:
    return await described(core, volume_of(core, command.target, command.argument))


async def described(core: Core, volume: VolumeConfig) -> Text:
    """What is told of a volume, in the order of the specification."""
    facts = await core.volumes.facts(volume)
    lines = {
        "pool": volume.pool,
        "vid": volume.vid,
        "size": facts.size,
        "usage": facts.usage,
        "rw": volume.rw,
        "source": volume.source or "",
        "path": facts.path or "",
        "save_on_stop": volume.save_on_stop,
        "snap_on_start": volume.snap_on_start,
        "revisions_to_keep": volume.revisions_to_keep,
        "ephemeral": is_ephemeral(core, volume),
        **({} if facts.outdated is None else {"is_outdated": facts.outdated}),
    }
    return Text("".join(f"{name}={value}\n" for name, value in lines.items()))


async def list_snapshots(core: Core, command: Command) -> Reply:
    return await revisions(core, volume_of(core, command.target, command.argument))


async def revisions(core: Core, volume: VolumeConfig) -> Text:
    return Text("".join(f"{found.id}\n" for found in await core.volumes.revisions(volume)))


async def snapshot(core: Core, command: Command) -> Reply:
    return Text(await core.volumes.snapshot(command.target, command.argument))


async def revert(core: Core, command: Command) -> Reply:
    await core.volumes.revert(command.target, command.argument, command.value)
    return DONE


def clone_from(core: Core, command: Command) -> Reply:
    """A token for the content of this volume."""
    volume_of(core, command.target, command.argument)
    copied = Copied(command.target.uuid, command.target.name, command.argument)
    return Text(core.volumes.tokens.give(command.caller.uuid, copied))


async def clone_to(core: Core, command: Command) -> Reply:
    """The token is good no more after this, whatever comes of it."""
    copied = core.volumes.tokens.take(command.caller.uuid, command.value)
    await core.volumes.clone(command.target, command.argument, copied)
    return DONE


async def resize(core: Core, command: Command) -> Reply:
    await core.volumes.resize(command.target, command.argument, command.value)
    return DONE


async def clear(core: Core, command: Command) -> Reply:
    await core.volumes.clear(command.target, command.argument)
    return DONE


async def set_revisions(core: Core, command: Command) -> Reply:
    await core.volumes.keep_revisions(command.target, command.argument, command.value)
    return DONE


async def set_rw(core: Core, command: Command) -> Reply:
    await core.volumes.set_rw(command.target, command.argument, command.value)
    return DONE


async def set_ephemeral(core: Core, command: Command) -> Reply:
    await core.volumes.set_ephemeral(command.target, command.argument, command.value)
    return DONE


def parse_revision(untrusted_payload: bytes) -> str:
    untrusted_text = _ascii(untrusted_payload).strip()
    if _REVISION.fullmatch(untrusted_text) is None:
        raise ProtocolError("expected the id of a revision, as admin.vm.volume.ListSnapshots shows it")
    return untrusted_text


def parse_token(untrusted_payload: bytes) -> str:
    return _ascii(untrusted_payload).strip()


def parse_size(untrusted_payload: bytes) -> int:
    """Bytes."""
    return number(untrusted_payload.strip())


def parse_revisions(untrusted_payload: bytes) -> int:
    return number(untrusted_payload, signed=True)


def _ascii(untrusted_payload: bytes) -> str:
    try:
        return untrusted_payload.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("the payload is not ASCII") from None


def _of_volume(parse: Callable[[bytes], Any]) -> Callable[[Core, Qube, str, bytes], Any]:
    """Look for the volume that the argument names before the payload."""

    def parsed(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> Any:
        volume_of(core, target, argument)
        return parse(untrusted_payload)

    return parsed


def copied_qube(core: Core, command: Command) -> tuple[str, ...]:
    """The qube whose volume is copied."""
    copied = core.volumes.tokens.look(command.caller.uuid, command.value)
    return () if copied is None else (copied.qube,)


def _writing(name: str, handler: Any, parse: Callable[[bytes], Any], values: Values | Unspoken) -> Method:
    return Method(
        name,
        handler,
        Scope.LOCAL,
        Access.WRITE,
        EMPTY,
        argument=Need.REQUIRED,
        payload=Need.REQUIRED,
        parse=_of_volume(parse),
        values=values,
        touches=copied_qube if handler is clone_to else None,
    )


METHODS = (
    Method("admin.vm.volume.List", list_volumes, Scope.LOCAL, Access.READ, NameRows("admin.vm.volume.Info")),
    Method("admin.vm.volume.Info", info, Scope.LOCAL, Access.READ, ONE_VOLUME, argument=Need.REQUIRED),
    Method(
        "admin.vm.volume.ListSnapshots",
        list_snapshots,
        Scope.LOCAL,
        Access.READ,
        ONE_VOLUME,
        argument=Need.REQUIRED,
    ),
    Method(
        "admin.vm.volume.Snapshot", snapshot, Scope.LOCAL, Access.WRITE, ONE_VOLUME, argument=Need.REQUIRED
    ),
    Method(
        "admin.vm.volume.CloneFrom", clone_from, Scope.LOCAL, Access.WRITE, ONE_VOLUME, argument=Need.REQUIRED
    ),
    Method("admin.vm.volume.Clear", clear, Scope.LOCAL, Access.WRITE, EMPTY, argument=Need.REQUIRED),
    _writing("admin.vm.volume.Revert", revert, parse_revision, one(Kind.TEXT)),
    _writing("admin.vm.volume.CloneTo", clone_to, parse_token, TOKEN),
    _writing("admin.vm.volume.Resize", resize, parse_size, one(Kind.NUMBER)),
    _writing("admin.vm.volume.Set.revisions_to_keep", set_revisions, parse_revisions, one(Kind.NUMBER)),
    _writing("admin.vm.volume.Set.rw", set_rw, truth, one(Kind.TEXT)),
    _writing("admin.vm.volume.Set.ephemeral", set_ephemeral, truth, one(Kind.TEXT)),
)
