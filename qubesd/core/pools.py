"""Adding, changing and removing storage pools (``spec/admin-calls.md`` 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from qubesd.core.draft import Draft
from qubesd.core.keeper import Keeper
from qubesd.core.storage import Storage
from qubesd.errors import PermissionDenied, PoolInUse, ProtocolError, QubesError
from qubesd.events import PoolAdded, PoolPreDelete, PoolRemoved
from qubesd.model.properties import GLOBALS, read
from qubesd.model.state import PoolConfig
from qubesd.storage import drivers
from qubesd.storage.pool import Space

_DEFAULTS = ("default_pool", *(name for name in GLOBALS if name.startswith("default_pool_")))


def pool_of(keeper: Keeper, name: str) -> PoolConfig:
    """The pool of that name; ``PermissionDenied`` where there is none (spec 0)."""
    config = keeper.system.pools.get(name)
    if config is None:
        raise PermissionDenied("no such pool; list them with admin.pool.List")
    return config


async def add(keeper: Keeper, storage: Storage, name: str, driver: str, options: Mapping[str, str]) -> None:
    """Make a pool ready and add it, durably.

    Raises:
        PoolInUse: there is one of that name.
        ProtocolError, QubesError, BadValue: the driver does not take these options.
        StorageError: it cannot be used.
    """
    config, pool = drivers.configure(name, driver, options, storage.environment)
    _refuse_known(keeper, name)
    await storage.work(pool.open)
    _refuse_known(keeper, name)
    draft = Draft(keeper)
    draft.system = draft.system.with_pool(config)
    draft.tell(PoolAdded(None, name))
    draft.apply()
    await keeper.durable()


async def remove(keeper: Keeper, storage: Storage, name: str) -> None:
    """Forget a pool; what is in it stays. What its driver cannot put away then is named in the log.

    Raises:
        PoolInUse: a qube has a volume there, or new ones would go there.
    """
    config = pool_of(keeper, name)
    default = any(read(keeper, None, default).value == name for default in _DEFAULTS)
    if default or keeper.owners.of((name, "")) or storage.is_filling(name):
        raise PoolInUse(f"pool {name!r} holds volumes of a qube or is a default; move those first")
    draft = Draft(keeper)
    draft.system = draft.system.without_pool(name)
    draft.tell(PoolPreDelete(None, name))
    draft.tell(PoolRemoved(None, name))
    draft.apply()
    await keeper.durable()
    await storage.forget(config)


async def configure(keeper: Keeper, name: str, option: str, value: str) -> None:
    """Change an option for the volumes to come.

    Raises:
        BadValue: the driver does not take the value.
        QubesError: it has no such option.
    """
    config = pool_of(keeper, name)
    if all(known.name != option for known in drivers.driver_of(config).options):
        raise QubesError(f"driver {config.driver!r} has no option {option!r}")
    if option == "revisions_to_keep":
        drivers.check_revisions(config, int(value))
    draft = Draft(keeper)
    changed = replace(config, options={**config.options, option: value})
    draft.system = draft.system.with_pool(changed)
    draft.apply()
    await keeper.durable()


async def space(storage: Storage, name: str) -> Space:
    """How full it is; nothing is known of a pool that cannot be used now."""
    try:
        return await storage.work(storage.pool(name).space)
    except QubesError:
        return Space()


def included_in(keeper: Keeper, storage: Storage, name: str) -> str | None:
    """The other pool whose directory holds this one's, the closest one; ``None`` where there is none, and for
    a pool that cannot be used."""
    own = _directory(storage, name)
    if own is None:
        return None
    found: list[tuple[int, str]] = []
    for other in keeper.system.pools:
        around = None if other == name else _directory(storage, other)
        if around is not None and around != own and own.is_relative_to(around):
            found.append((len(around.parts), other))
    return max(found)[1] if found else None


def _directory(storage: Storage, name: str) -> Path | None:
    try:
        return storage.pool(name).directory
    except QubesError:
        return None


def _refuse_known(keeper: Keeper, name: str) -> None:
    if name in keeper.system.pools:
        raise PoolInUse(f"a pool {name!r} is there already")


def check_name(untrusted_name: str) -> str:
    """The name of a new pool; ``ProtocolError`` for what cannot be one."""
    allowed = untrusted_name.isascii() and untrusted_name.replace("-", "").replace("_", "").replace(".", "")
    if not 0 < len(untrusted_name) <= 128 or not allowed or not allowed.isalnum():
        raise ProtocolError("the name of a pool is made of letters, digits, '-', '_' and '.'")
    return untrusted_name
