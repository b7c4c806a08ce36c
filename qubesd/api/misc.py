"""What dom0's small services ask over the misc socket, each in the name of the qube that called it
(``spec/wire-protocol.md`` 8).

Who may call them the policy has said already. The source is the qube, and all of it is about that qube.
"""

from __future__ import annotations

import re

from qubesd.api.method import DONE, Access, Command, Destination, Method, Need, Reply, Scope, Unguarded
from qubesd.api.values import Unspoken
from qubesd.core.core import Core
from qubesd.errors import ProtocolError
from qubesd.model.state import Qube

_COUNT = re.compile(rb"\s{0,16}([0-9]{1,9})\s{0,16}", re.ASCII)
_EMPTY = Unguarded("the answer is empty")


async def request_features(core: Core, command: Command) -> Reply:
    await core.requests.features(command.caller)
    return DONE


async def notify_tools(core: Core, command: Command) -> Reply:
    await core.requests.tools(command.caller)
    return DONE


async def notify_updates(core: Core, command: Command) -> Reply:
    await core.updates.note(command.caller, command.value > 0)
    return DONE


def _parse_count(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> int:
    """How many updates there are."""
    count = _COUNT.fullmatch(untrusted_payload)
    if count is None:
        raise ProtocolError("expected a number of updates, at most 9 digits")
    return int(count[1])


METHODS = (
    Method("qubes.FeaturesRequest", request_features, Scope.LOCAL, Access.WRITE, _EMPTY, Destination.DOM0),
    Method("qubes.NotifyTools", notify_tools, Scope.LOCAL, Access.WRITE, _EMPTY, Destination.DOM0),
    Method(
        "qubes.NotifyUpdates",
        notify_updates,
        Scope.LOCAL,
        Access.WRITE,
        _EMPTY,
        Destination.DOM0,
        payload=Need.REQUIRED,
        parse=_parse_count,
        values=Unspoken("words of the guest's own tools"),
    ),
)
