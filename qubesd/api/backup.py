"""Backups by the profiles of dom0's administrator (``spec/admin-calls.md`` 9, ``spec/backup.md`` 2)."""

from __future__ import annotations

from collections.abc import Iterable

from qubesd.api.method import (
    DONE,
    Access,
    Command,
    Counted,
    Destination,
    Method,
    Need,
    Reply,
    Scope,
    Text,
    Unguarded,
)
from qubesd.core.backup_content import Content
from qubesd.core.core import Core
from qubesd.errors import ProtocolError
from qubesd.model.properties import read, table
from qubesd.model.state import Klass, Qube

_EMPTY = Unguarded("the answer is empty")
_HEADINGS = ("VM", "type", "size")
_UNITS = ("KiB", "MiB", "GiB", "TiB")


async def info(core: Core, command: Command) -> Reply:
    """A table for people, of the qubes that the caller may know of and no others."""
    summary = await core.backups.info(command.value)
    contents = [content for content in summary.contents if command.sees(content.qube.name)]
    rows = [(content.qube.name, _kind(core, content.qube), _shown(content.size)) for content in contents]
    total = ("total", "", _shown(sum(content.size for content in contents)))
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, total, strict=True)]
    lines = [_line(_HEADINGS, widths), _line(tuple("-" * width for width in widths), widths)]
    for content, row in zip(contents, rows, strict=True):
        lines.append(_line(row, widths) + _remark(core, content))
    lines += [_line(total, widths), "", "not selected:"]
    lines += [f"  {qube.name}" for qube in summary.left_out if command.sees(qube.name)] or ["  (none)"]
    return Text("".join(f"{line}\n" for line in lines))


async def execute(core: Core, command: Command) -> Reply:
    await core.backups.execute(command.value)
    return DONE


def cancel(core: Core, command: Command) -> Reply:
    """Asks it to stop, which is not waited for."""
    core.backups.cancel(command.value)
    return DONE


def _parse_profile(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> str:
    if "/" in argument:
        raise ProtocolError("the argument is the name of a backup profile, which has no '/'")
    return argument


def _kind(core: Core, qube: Qube) -> str:
    match qube.klass:
        case Klass.ADMIN:
            return "User home"
        case Klass.TEMPLATE:
            return "Template VM"
    network = "provides_network" in table(qube.klass) and read(core, qube, "provides_network").value
    return "VM + Sys" if network else "VM"


def _remark(core: Core, content: Content) -> str:
    if content.trouble:
        return f"  (cannot be saved: {content.trouble})"
    running = content.volumes and core.running(content.qube.name).state != "Halted"
    return "  (running; saved as it was before its start)" if running else ""


def _line(cells: Iterable[str], widths: list[int]) -> str:
    name, kind, size = cells
    return f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {size:>{widths[2]}}"


def _shown(size: int) -> str:
    number = size / 1024
    for unit in _UNITS[:-1]:
        if number < 1024:
            return f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} {_UNITS[-1]}"


METHODS = (
    Method(
        "admin.backup.Info",
        info,
        Scope.LOCAL,
        Access.READ,
        Counted("admin.vm.List"),
        Destination.DOM0,
        argument=Need.REQUIRED,
        parse=_parse_profile,
    ),
    Method(
        "admin.backup.Execute",
        execute,
        Scope.GLOBAL,
        Access.EXECUTE,
        _EMPTY,
        Destination.DOM0,
        argument=Need.REQUIRED,
        parse=_parse_profile,
    ),
    Method(
        "admin.backup.Cancel",
        cancel,
        Scope.GLOBAL,
        Access.EXECUTE,
        _EMPTY,
        Destination.DOM0,
        argument=Need.REQUIRED,
        parse=_parse_profile,
    ),
)
