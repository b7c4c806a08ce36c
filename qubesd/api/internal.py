"""What dom0's own services ask over the internal socket (``spec/wire-protocol.md`` 7); never for a qube."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qubesd.api.method import DONE, Access, Command, Destination, Method, Reply, Scope, Text, Unguarded
from qubesd.core.core import Core
from qubesd.core.keeper import Keeper
from qubesd.model.properties import read, table
from qubesd.model.state import Qube

_OPTIONAL = {
    "template_for_dispvms": False,
    "default_dispvm": None,
    "guivm": None,
    "relayvm": None,
    "transport_rpc": None,
}
"""Properties that not every class has, and what stands for them where there is none."""


def get_system_info(core: Core, command: Command) -> Reply:
    """All that a policy may speak of, as one JSON document."""
    domains = ", ".join(core.picture(_entry).all().values())
    return Text(f'{{"domains": {{{domains}}}}}')


def _entry(keeper: Keeper, qube: Qube) -> str:
    return f"{json.dumps(qube.name)}: {json.dumps(facts(keeper, qube))}"


def facts(keeper: Keeper, qube: Qube) -> Mapping[str, Any]:
    """What is told of one qube; ``icon`` and ``label`` are those of its label, not its own icon."""
    label = keeper.system.labels[str(qube.properties["label"])]
    return {
        "internal": qube.features.get("internal"),
        "tags": sorted(qube.tags),
        "type": str(qube.klass),
        **{
            name: read(keeper, qube, name).value if name in table(qube.klass) else missing
            for name, missing in _OPTIONAL.items()
        },
        "icon": f"appvm-{label.name}",
        "label": label.color,
        "power_state": keeper.running(qube.name).state,
        "uuid": qube.uuid,
    }


async def suspend_pre(core: Core, command: Command) -> Reply:
    await core.sleep.begin()
    return DONE


async def suspend_post(core: Core, command: Command) -> Reply:
    await core.sleep.end()
    return DONE


_NO_ROWS = Unguarded("answers nothing but that it was done")

METHODS = (
    Method(
        "internal.GetSystemInfo",
        get_system_info,
        Scope.GLOBAL,
        Access.READ,
        Unguarded("never served to a qube"),
        Destination.DOM0,
    ),
    Method("internal.SuspendPre", suspend_pre, Scope.GLOBAL, Access.EXECUTE, _NO_ROWS, Destination.DOM0),
    Method("internal.SuspendPost", suspend_post, Scope.GLOBAL, Access.EXECUTE, _NO_ROWS, Destination.DOM0),
)
