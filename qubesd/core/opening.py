"""From a configuration to a running core: the one place where the real parts are put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from qubesd.config import Config
from qubesd.core.core import NO_EXTENSIONS, Core
from qubesd.core.device_lists import Watch, unwatched
from qubesd.errors import StorageError, StoreError
from qubesd.extension import Extension
from qubesd.model.state import System
from qubesd.storage import drivers as storage
from qubesd.store.commit import GroupCommit
from qubesd.store.file import FileStore
from qubesd.store.fresh import POOL, fresh_system
from qubesd.virt import drivers


@asynccontextmanager
async def open_core(
    config: Config,
    create: bool = False,
    watch: Watch = unwatched,
    extensions: Mapping[str, Extension] = NO_EXTENSIONS,
) -> AsyncIterator[Core]:
    """A core on the store and the hypervisor that ``config`` names; closed, with all written, at the end.

    Args:
        create: make an empty system where there is no store.
        watch, extensions: as of ``Core``.

    Raises:
        StoreError: the store is missing, damaged or in use; it was not touched.
        NotSupported: there is no such hypervisor driver.
        HypervisorLost: the hypervisor cannot be reached.
    """
    hypervisor = drivers.make(config.hypervisor, config.libvirt_uri)
    store = FileStore(config.store, config.socket_group, config.store_copies)
    try:
        system = _load(store, config, create)
        core = Core(config, system, GroupCommit(store.save, system), hypervisor, watch, extensions)
        await core.open()
        try:
            yield core
        finally:
            await core.close()
    finally:
        store.close()


def create_system(config: Config) -> None:
    """Make an empty system on this host, where there is none (``spec/qubes-xml.md`` 1.7).

    Raises:
        StoreError: there is one, or it cannot be written.
    """
    store = FileStore(config.store, config.socket_group)
    try:
        if store.exists():
            raise StoreError(f"{store.path}: is there already, and stays as it is")
        config.qubes_dir.mkdir(mode=0o770, parents=True, exist_ok=True)
        store.save(_empty(config, _fitting_driver(config)))
    finally:
        store.close()


def _load(store: FileStore, config: Config, create: bool) -> System:
    if not store.exists():
        if not create:
            do = "restore it from a backup, or make an empty system with qubesd --create"
            raise StoreError(f"{store.path}: not found: {do}")
        store.path.parent.mkdir(parents=True, exist_ok=True)
        store.save(_empty(config, "file-reflink"))
    return store.load()


def _fitting_driver(config: Config) -> str:
    """That of the pool in the folder of the qubes: one that shares extents, where the file system can."""
    try:
        storage.configure(POOL, "file-reflink", {"dir_path": str(config.qubes_dir)})[1].open()
    except StorageError:
        return "file"
    return "file-reflink"


def _empty(config: Config, driver: str) -> System:
    """An empty system with its pool, and the newest kernel where one is installed, as explicit defaults."""
    system = fresh_system(config.qubes_dir, config.kernels_dir, driver).with_property("default_pool", POOL)
    kernels = sorted(found.parent.name for found in config.kernels_dir.glob("*/vmlinuz"))
    return system.with_property("default_kernel", kernels[-1]) if kernels else system
