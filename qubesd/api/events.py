"""The event streams (``spec/admin-calls.md`` 2.8)."""

from __future__ import annotations

from qubesd.api.method import Access, Command, EventRows, EventStream, Method, Reply, Scope
from qubesd.core.core import Core
from qubesd.model.state import Klass


def events(core: Core, command: Command) -> Reply:
    """On dom0 the events of everything, else those of the destination."""
    return EventStream(None if command.target.klass is Klass.ADMIN else command.target.name)


METHODS = (Method("admin.Events", events, Scope.GLOBAL, Access.READ, EventRows("admin.Events")),)
