"""The Policy Admin API's lines of the method table: the contract of each call, whoever serves it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from qubesd.api.method import Access, Command, Destination, Method, Need, Reply, Scope, Unguarded
from qubesd.api.values import Unspoken
from qubesd.model.state import Qube

if TYPE_CHECKING:
    from qubesd.core.core import Core

_EMPTY = Unguarded("the answer is empty")
_TEXT = Unguarded("the one file that the call was judged for")
_NAMES = Unguarded("who may list the files of the policy may know the names of all of them")
_UNSPOKEN = Unspoken("a token, and the text of a file")


async def unserved(core: Core, command: Command) -> Reply:
    """In the place of a handler, where only the contract counts."""
    raise NotImplementedError(command.service)


def _as_it_came(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> bytes:
    """The payload; its form is checked in the stock order, when the file is known."""
    return untrusted_payload


_read = partial(
    Method, handler=unserved, scope=Scope.GLOBAL, access=Access.READ, destination=Destination.DOM0
)
_write = partial(
    Method,
    handler=unserved,
    scope=Scope.GLOBAL,
    access=Access.WRITE,
    guard=_EMPTY,
    destination=Destination.DOM0,
    argument=Need.REQUIRED,
    payload=Need.REQUIRED,
    parse=_as_it_came,
    values=_UNSPOKEN,
)

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            _read("policy.List", guard=_NAMES),
            _read("policy.Get", guard=_TEXT, argument=Need.REQUIRED),
            _write("policy.Replace"),
            _write("policy.Remove"),
            _read("policy.include.List", guard=_NAMES),
            _read("policy.include.Get", guard=_TEXT, argument=Need.REQUIRED),
            _write("policy.include.Replace"),
            _write("policy.include.Remove"),
            _read("policy.GetFiles", guard=_NAMES, argument=Need.REQUIRED),
        )
    }
)
"""By service; ``PolicyCalls.methods`` has them with the handler that serves them."""
