"""The notes that a person keeps about a qube (``spec/admin-calls.md`` 2.10)."""

from __future__ import annotations

from qubesd.api.method import DONE, Access, Command, Destination, Method, Need, Reply, Scope, Text, Unguarded
from qubesd.api.values import Unspoken
from qubesd.core import folders
from qubesd.core.core import Core
from qubesd.errors import NotSupported, ProtocolError
from qubesd.model.state import Klass, Qube

MOST = 256_000
"""Bytes of notes (the documented limit)."""

_ONE_VALUE = Unguarded("the one text that the call was judged for")
_EMPTY = Unguarded("the answer is empty")


async def get(core: Core, command: Command) -> Reply:
    _check_has_notes(command.target)
    place = folders.place(core.config, command.target, folders.NOTES)
    content = await core.storage.work(folders.read, place)
    return Text("" if content is None else _shown(content.decode("utf-8", "replace")))


async def set_notes(core: Core, command: Command) -> Reply:
    _check_has_notes(command.target)
    await core.power.lives.finish(_write(core, command.target, command.value))
    return DONE


async def _write(core: Core, qube: Qube, text: str) -> None:
    async with core.power.lives.holding(qube):
        place = folders.place(core.config, core.current(qube), folders.NOTES)
        await core.storage.work(folders.write, place, text.encode("utf-8"))


def _check_has_notes(qube: Qube) -> None:
    if qube.klass is Klass.REMOTE:
        raise NotSupported(f"no notes are kept of qube {qube.name!r}, which is on another host")


def _parse_text(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> str:
    if len(untrusted_payload) > MOST:
        raise ProtocolError(f"notes are at most {MOST} bytes")
    try:
        return _shown(untrusted_payload.decode("utf-8"))
    except UnicodeDecodeError:
        raise ProtocolError("notes are UTF-8") from None


def _shown(untrusted_text: str) -> str:
    """With ``_`` for whatever a display could take for something else than a letter of the text."""
    return "".join(letter if letter.isprintable() or letter in "\t\n" else "_" for letter in untrusted_text)


METHODS = (
    Method("admin.vm.notes.Get", get, Scope.LOCAL, Access.READ, _ONE_VALUE, Destination.QUBE),
    Method(
        "admin.vm.notes.Set",
        set_notes,
        Scope.LOCAL,
        Access.WRITE,
        _EMPTY,
        Destination.QUBE,
        payload=Need.OPTIONAL,
        parse=_parse_text,
        values=Unspoken("text for people"),
    ),
)
