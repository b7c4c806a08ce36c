"""The statistics of running qubes, as a stream (``spec/admin-calls.md`` 2.9)."""

from __future__ import annotations

from qubesd.api.method import Access, Command, EventRows, EventStream, Method, Reply, Scope
from qubesd.core.core import Core
from qubesd.errors import QubeNotRunning
from qubesd.model.state import Klass


def statistics(core: Core, command: Command) -> Reply:
    """On dom0 those of all running qubes, dom0 included, else those of the destination while it runs.

    Raises:
        QubeNotRunning: the destination is halted, or runs on another host.
    """
    target = command.target
    if target.klass is Klass.ADMIN:
        return EventStream(None, statistics=True)
    if target.klass is Klass.REMOTE or core.running(target.name).state == "Halted":
        raise QubeNotRunning(f"qube {target.name!r} is not running")
    return EventStream(target.name, statistics=True)


METHODS = (Method("admin.vm.Stats", statistics, Scope.GLOBAL, Access.READ, EventRows("admin.Events")),)
