"""The lines of the method table as entries of the engine's catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from broker.editing.table import METHODS as POLICY_METHODS
from policy_engine import Entry, Kind, Names
from policy_engine.catalogue import Form, no_form
from qubesd.api.imports import PROGRAMS
from qubesd.api.method import Access, Method, Need, Scope, Unguarded, alters_nothing, never
from qubesd.api.table import INTERNAL, METHODS
from qubesd.api.values import Values

_SCOPES: Mapping[Scope, Literal["local", "global"]] = {Scope.LOCAL: "local", Scope.GLOBAL: "global"}
_ACCESSES: Mapping[Access, Literal["read", "write", "execute"]] = {
    Access.READ: "read",
    Access.WRITE: "write",
    Access.EXECUTE: "execute",
}


def entry_of(method: Method) -> Entry:
    """What a policy is to know of this method."""
    return Entry(
        scope=_SCOPES[method.scope],
        access=_ACCESSES[method.access],
        names=Names(method.names.value),
        form=_form(method.values) if isinstance(method.values, Values) else no_form,
        alters=method.alters,
        reserved=method.reserved,
        takes_payload=method.payload is not Need.FORBIDDEN,
        needs_core=(
            method.touches is not None
            or not isinstance(method.guard, Unguarded)
            or method.alters is not alters_nothing
            or method.reserved is not never
        ),
    )


def _form(values: Values) -> Form:
    def form(argument: str) -> Mapping[str, Kind] | None:
        keys = values.form(argument)
        return None if keys is None else {key: Kind(kind.value) for key, kind in keys.items()}

    return form


ENTRIES: Mapping[str, Entry] = MappingProxyType(
    {
        **{service: entry_of(method) for service, method in METHODS.items()},
        **{service: entry_of(method) for service, method in POLICY_METHODS.items()},
        # Programs of dom0 carry these out, by a call of their own.
        **{program: entry_of(INTERNAL["internal.vm.volume.ImportBegin"]) for program in PROGRAMS},
    }
)
"""By service: whatever the Admin API offers to a qube."""
