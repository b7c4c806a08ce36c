"""Storage pools (``spec/admin-calls.md`` 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qubesd.api.method import (
    DONE,
    Access,
    Command,
    Destination,
    Handler,
    Method,
    NameRows,
    Need,
    Parser,
    Reply,
    Rows,
    Scope,
    Text,
    Unguarded,
    VolumeRows,
)
from qubesd.api.numbers import number, truth
from qubesd.api.values import Canonical, Keys, Kind, Values, one, plain
from qubesd.core import pools
from qubesd.core.core import Core
from qubesd.core.pools import check_name, pool_of
from qubesd.errors import PermissionDenied, PoolInUse, ProtocolError
from qubesd.model.state import DOM0, Qube
from qubesd.storage.drivers import DRIVERS, Driver

_ONE_POOL = Unguarded("about the one pool that the call was judged for")
_EMPTY = Unguarded("the answer is empty")
_FIXED = Unguarded("the same on every system")


def list_pools(core: Core, command: Command) -> Reply:
    return Rows({name: f"{name}\n" for name in core.system.pools})


def list_drivers(core: Core, command: Command) -> Reply:
    return Text("".join(" ".join([name, *_options(DRIVERS[name])]) + "\n" for name in sorted(DRIVERS)))


def _options(driver: Driver) -> list[str]:
    return [option.name for option in driver.options]


async def info(core: Core, command: Command) -> Reply:
    config = pool_of(core, command.argument)
    lines = {"name": config.name, "driver": config.driver, **config.options}
    space = await pools.space(core.storage, config.name)
    more = {
        "size": space.size,
        "usage": space.usage,
        "included_in": pools.included_in(core, core.storage, config.name),
    }
    known = [*sorted(lines.items()), *((name, value) for name, value in more.items() if value is not None)]
    return Text("".join(f"{name}={value}\n" for name, value in known))


async def usage_details(core: Core, command: Command) -> Reply:
    space = await pools.space(core.storage, pool_of(core, command.argument).name)
    figures = {
        "data_size": space.size,
        "data_usage": space.usage,
        "metadata_size": space.metadata_size,
        "metadata_usage": space.metadata_usage,
    }
    return Text("".join(f"{name}={value}\n" for name, value in figures.items() if value is not None))


async def add(core: Core, command: Command) -> Reply:
    name, options = command.value
    await core.power.lives.finish(pools.add(core, core.storage, name, command.argument, options))
    return DONE


async def remove(core: Core, command: Command) -> Reply:
    await pools.remove(core, core.storage, command.argument)
    return DONE


async def set_revisions(core: Core, command: Command) -> Reply:
    await pools.configure(core, command.argument, "revisions_to_keep", str(command.value))
    return DONE


async def set_ephemeral(core: Core, command: Command) -> Reply:
    await pools.configure(core, command.argument, "ephemeral_volatile", str(command.value))
    return DONE


async def list_volumes(core: Core, command: Command) -> Reply:
    """The volumes of all qubes there, and those that belong to none."""
    name = pool_of(core, command.argument).name
    rows = {
        f"{qube.name}+{volume.name}": volume.vid
        for owner in core.owners.of((name, ""))
        if (qube := core.system.qubes.get(owner)) is not None
        for volume in core.storage.volumes(qube)
        if volume.pool == name
    }
    kernels = await core.storage.work(core.storage.pool(name).kernels)
    if kernels:
        # A qube has no kernel of its own; what it boots is one of these.
        rows = {f"{DOM0}+{vid}": vid for vid in kernels}
    return Rows({key: f"{vid}\n" for key, vid in rows.items()})


def _parse_options(
    core: Core, target: Qube, argument: str, untrusted_payload: bytes
) -> tuple[str, dict[str, str]]:
    """The name of the new pool, and the options as they were given."""
    if argument not in DRIVERS:
        raise PermissionDenied("no such driver; list them with admin.pool.ListDrivers")
    try:
        untrusted_lines = untrusted_payload.decode("ascii").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise ProtocolError("the payload is not ASCII") from None
    untrusted_options: dict[str, str] = {}
    for untrusted_line in untrusted_lines:
        untrusted_key, equals, untrusted_value = untrusted_line.partition("=")
        if not equals or untrusted_key in untrusted_options:
            raise ProtocolError("the payload is lines OPTION=VALUE, each option once")
        untrusted_options[untrusted_key] = untrusted_value
    name = check_name(untrusted_options.pop("name", ""))
    if name in core.system.pools:
        raise PoolInUse(f"a pool {name!r} is there already")
    return name, untrusted_options


def _parse_keep(untrusted_payload: bytes) -> int:
    keep = number(untrusted_payload, signed=True)
    if keep < -1:
        raise ProtocolError("revisions_to_keep is at least -1")
    return keep


def _of_pool(parse: Callable[[bytes], Any]) -> Parser:
    """Look for the pool that the argument names before the payload."""

    def parsed(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> Any:
        pool_of(core, argument)
        return parse(untrusted_payload)

    return parsed


def _reading(name: str, handler: Handler, guard: Unguarded | VolumeRows = _ONE_POOL) -> Method:
    return Method(name, handler, Scope.GLOBAL, Access.READ, guard, Destination.DOM0, argument=Need.REQUIRED)


def _form(argument: str) -> Keys | None:
    """The name and the options of the driver, all texts."""
    driver = DRIVERS.get(argument)
    return None if driver is None else dict.fromkeys(("name", *_options(driver)), Kind.TEXT)


def _canonical(value: tuple[str, dict[str, str]]) -> Mapping[str, Canonical]:
    name, options = value
    return {"name": name, **{option: plain(text) for option, text in options.items()}}


def _writing(name: str, handler: Handler, parse: Parser | None, values: Values | None = None) -> Method:
    return Method(
        name,
        handler,
        Scope.GLOBAL,
        Access.WRITE,
        _EMPTY,
        Destination.DOM0,
        argument=Need.REQUIRED,
        payload=Need.FORBIDDEN if parse is None else Need.REQUIRED,
        parse=parse,
        values=values,
    )


METHODS = (
    Method(
        "admin.pool.List",
        list_pools,
        Scope.GLOBAL,
        Access.READ,
        NameRows("admin.pool.Info"),
        Destination.DOM0,
    ),
    Method("admin.pool.ListDrivers", list_drivers, Scope.GLOBAL, Access.READ, _FIXED, Destination.DOM0),
    _reading("admin.pool.Info", info),
    _reading("admin.pool.UsageDetails", usage_details),
    _reading(
        "admin.pool.volume.List", list_volumes, VolumeRows("admin.pool.volume.Info", "admin.vm.volume.Info")
    ),
    _writing("admin.pool.Add", add, _parse_options, Values(_form, _canonical)),
    _writing("admin.pool.Remove", remove, None),
    _writing("admin.pool.Set.revisions_to_keep", set_revisions, _of_pool(_parse_keep), one(Kind.NUMBER)),
    _writing("admin.pool.Set.ephemeral_volatile", set_ephemeral, _of_pool(truth), one(Kind.TEXT)),
)
