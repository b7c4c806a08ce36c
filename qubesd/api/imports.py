"""Importing a volume's content: what dom0's two import programs ask over the internal socket.

``admin.vm.volume.Import`` and ``ImportWithSize`` are programs, since their data is a stream; they begin and
end the import here, in the name of the qube that called them (``spec/admin-calls.md`` 6.7).
"""

from __future__ import annotations

from qubesd.api.call import Call
from qubesd.api.method import (
    DONE,
    Access,
    Command,
    Method,
    Need,
    Reply,
    Scope,
    Text,
)
from qubesd.api.numbers import number
from qubesd.api.values import Unspoken
from qubesd.api.volumes import EMPTY, ONE_VOLUME
from qubesd.core.core import Core
from qubesd.errors import ProtocolError
from qubesd.model.state import Qube

PROGRAMS = ("admin.vm.volume.Import", "admin.vm.volume.ImportWithSize")
"""The services that qubes call for this and policies speak of; without and with a size ahead of the data."""
STREAM = Unspoken("a stream of data")

_MOST_WORDS = 512
"""Characters of a reason that is passed on."""


async def begin(core: Core, command: Command) -> Reply:
    size, path = await core.volumes.begin_import(
        command.caller, command.target, command.argument, command.value
    )
    return Text(f"{size} {path}")


async def end(core: Core, command: Command) -> Reply:
    await core.volumes.end_import(command.caller, command.target, command.argument, command.value)
    return DONE


def _parse_begin(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> int | None:
    """The new size in bytes; ``None`` for that of the volume."""
    if argument not in target.volumes:
        raise ProtocolError("no such volume; list them with admin.vm.volume.List")
    return number(untrusted_payload) if untrusted_payload else None


def _parse_end(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> str | None:
    """Why it failed; ``None`` where it did not."""
    untrusted_status, _, untrusted_reason = untrusted_payload.partition(b"\n")
    if untrusted_status == b"ok":
        return None
    if untrusted_status != b"fail":
        raise ProtocolError("the payload is 'ok', or 'fail' and a line with the reason")
    reason = untrusted_reason.decode("ascii", "replace")[:_MOST_WORDS]
    return "".join(letter if letter.isprintable() else "?" for letter in reason) or "the import failed"


def _import_of(call: Call) -> str:
    without_size, with_size = PROGRAMS
    return with_size if call.payload else without_size


METHODS = (
    Method(
        "internal.vm.volume.ImportBegin",
        begin,
        Scope.LOCAL,
        Access.WRITE,
        ONE_VOLUME,
        argument=Need.REQUIRED,
        payload=Need.OPTIONAL,
        parse=_parse_begin,
        values=STREAM,
        judged_as=_import_of,
    ),
    Method(
        "internal.vm.volume.ImportEnd",
        end,
        Scope.LOCAL,
        Access.WRITE,
        EMPTY,
        argument=Need.REQUIRED,
        payload=Need.REQUIRED,
        parse=_parse_end,
        values=Unspoken("words of dom0's own program"),
    ),
)
