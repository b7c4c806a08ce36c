"""The power calls (``spec/admin-calls.md`` 2.5 and 2.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qubesd.api.method import DONE, Access, Command, Method, Need, Reply, Scope, Text, Unguarded
from qubesd.errors import ProtocolError, QubeNotRunning, QubesError
from qubesd.model.state import Klass, Qube

if TYPE_CHECKING:
    from qubesd.core.core import Core


@dataclass(frozen=True, slots=True)
class Stop:
    """How ``admin.vm.Shutdown`` is to be done."""

    force: bool
    wait: bool


def parse_stop(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> Stop:
    """The words ``force`` and ``wait``, each at most once, joined by ``+``; or nothing.

    Raises:
        ProtocolError: anything else.
    """
    words = argument.split("+") if argument else []
    if not set(words) <= {"force", "wait"} or len(set(words)) != len(words):
        raise ProtocolError("argument: expected force, wait or both, joined by +")
    return Stop(force="force" in words, wait="wait" in words)


async def start(core: Core, command: Command) -> Reply:
    await core.power.start(command.target)
    return DONE


async def shutdown(core: Core, command: Command) -> Reply:
    stop: Stop = command.value
    await core.power.shutdown(command.target, force=stop.force, wait=stop.wait)
    return DONE


async def pause(core: Core, command: Command) -> Reply:
    await core.power.pause(command.target)
    return DONE


async def unpause(core: Core, command: Command) -> Reply:
    await core.power.unpause(command.target)
    return DONE


async def suspend(core: Core, command: Command) -> Reply:
    await core.power.suspend(command.target)
    return DONE


async def resume(core: Core, command: Command) -> Reply:
    await core.power.resume(command.target)
    return DONE


async def kill(core: Core, command: Command) -> Reply:
    await core.power.kill(command.target)
    return DONE


async def current_state(core: Core, command: Command) -> Reply:
    """Memory in KiB, processor time in nanoseconds, and the state that lists show as well."""
    figures = await core.power.figures(command.target)
    return Text(
        f"mem={figures.memory} mem_static_max={figures.memory_limit} cputime={figures.cpu_time} "
        f"power_state={core.running(command.target.name).state}"
    )


_LOCAL = Scope.LOCAL
_RUN = Access.EXECUTE
_NO_ROWS = Unguarded("answers nothing but that it was done")
_ONE_QUBE = Unguarded("tells of the destination alone")


async def console(core: Core, command: Command) -> Reply:
    """The path of the terminal, for the program of dom0 that connects the caller to it."""
    if core.running(command.target.name).state == "Halted":
        raise QubeNotRunning(f"qube {command.target.name!r} is not running; start it first")
    if command.target.klass in (Klass.ADMIN, Klass.REMOTE):
        raise QubesError(f"qube {command.target.name!r} has no console here")
    return Text(await core.hypervisor.console(command.target.uuid))


METHODS = (
    Method("admin.vm.Start", start, _LOCAL, _RUN, _NO_ROWS),
    Method("admin.vm.Shutdown", shutdown, _LOCAL, _RUN, _NO_ROWS, argument=Need.OPTIONAL, parse=parse_stop),
    Method("admin.vm.Pause", pause, _LOCAL, _RUN, _NO_ROWS),
    Method("admin.vm.Unpause", unpause, _LOCAL, _RUN, _NO_ROWS),
    Method("admin.vm.Suspend", suspend, _LOCAL, _RUN, _NO_ROWS),
    Method("admin.vm.Resume", resume, _LOCAL, _RUN, _NO_ROWS),
    Method("admin.vm.Kill", kill, _LOCAL, _RUN, _NO_ROWS),
    Method("admin.vm.CurrentState", current_state, _LOCAL, Access.READ, _ONE_QUBE),
    Method(
        "admin.vm.Console",
        console,
        Scope.LOCAL,
        Access.WRITE,
        Unguarded("the one console that the call was judged for"),
    ),
)
