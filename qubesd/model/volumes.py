"""Which volumes a qube of each class has, as configuration only (``spec/storage.md`` 2 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import ascii_lowercase

from qubesd.errors import QubesError, StorageError
from qubesd.model import forms
from qubesd.model.boot import kernel
from qubesd.model.lineage import own, template_of
from qubesd.model.properties import read, text
from qubesd.model.state import Klass, PoolConfig, Qube, VolumeConfig
from qubesd.model.view import View

NAMES = ("root", "private", "volatile", "kernel")
GIB = 1 << 30

_SIZES = {"root": 10 * GIB, "private": 2 * GIB, "volatile": 10 * GIB}
_DISPOSABLE_VOLATILE = 12 * GIB
_KINDS = {
    # Which volumes are snapshots of the template's, and which keep what was written to them.
    Klass.TEMPLATE: ((), ("root", "private")),
    Klass.STANDALONE: ((), ("root", "private")),
    Klass.APP: (("root",), ("private",)),
    Klass.DISPOSABLE: (("root", "private"), ()),
}


def layout(
    view: View, qube: Qube, pool: str | None = None, pools: Mapping[str, str] | None = None
) -> dict[str, VolumeConfig]:
    """The volumes of a qube to be made; none for dom0 and a RemoteVM.

    Args:
        qube: the record as it will be, with its template; it need not be in the system yet. pool: where its
        own writable volumes go; ``None`` for the defaults. Snapshots and the kernel stay where
            their sources are.
        pools: the same for single volumes by name.

    Raises:
        QubesError: a pool does not exist, or a snapshot was to go to another pool than its source.
        StorageError: a pool's driver cannot hold a volume.
    """
    if qube.klass not in _KINDS:
        return {}
    snapshots, kept = _KINDS[qube.klass]
    asked = dict(pools or {})
    volumes: dict[str, VolumeConfig] = {}
    for name in NAMES:
        if name in snapshots:
            if name in asked:
                raise QubesError(f"volume {name!r} is a snapshot of the template's and stays in its pool")
            volumes[name] = _snapshot(view, qube, name)
        elif name == "kernel":
            volumes[name] = _kernel(view, qube, asked.get(name))
        else:
            volumes[name] = _own(view, qube, name, asked.get(name, pool), name in kept)
    return volumes


def follow_template(view: View, qube: Qube) -> dict[str, VolumeConfig]:
    """The volumes of a qube whose template, or template's template, is another one now: the snapshots are
    taken from there, the others stay."""
    snapshots = _KINDS[qube.klass][0]
    return {
        name: _snapshot(view, qube, name) if name in snapshots else volume
        for name, volume in qube.volumes.items()
    }


def current(view: View, qube: Qube, volume: VolumeConfig) -> VolumeConfig:
    """The volume as it is now: that of the kernel is always the kernel that the qube would boot."""
    if volume.name != "kernel" or view.system.pools[volume.pool].driver != "linux-kernel":
        return volume
    return replace(volume, vid=text(read(view, qube, "kernel").value))


def is_ephemeral(view: View, volume: VolumeConfig) -> bool:
    """Whether it is encrypted with a key that nobody keeps; unset follows the pool, for volatile volumes."""
    if volume.ephemeral is not None:
        return volume.ephemeral
    if volume.snap_on_start or volume.save_on_stop or not volume.rw:
        return False
    return view.system.pools[volume.pool].options.get("ephemeral_volatile") == "True"


def targets(names: Sequence[str]) -> list[str]:
    """The block device of each volume: fixed for the standard ones, from ``xvde`` on for others."""
    further = iter(ascii_lowercase[len(NAMES) :])
    return [f"xvd{ascii_lowercase[NAMES.index(name)] if name in NAMES else next(further)}" for name in names]


def _own(view: View, qube: Qube, name: str, pool_name: str | None, kept: bool) -> VolumeConfig:
    pool = _pool(view, name, pool_name)
    size = _SIZES[name]
    if name == "volatile" and qube.klass is Klass.DISPOSABLE:
        size = _DISPOSABLE_VOLATILE
    return VolumeConfig(
        name=name,
        pool=pool.name,
        vid=_vid(pool, qube, name),
        revisions_to_keep=_revisions(pool),
        rw=True,
        save_on_stop=kept,
        size=size,
    )


def _snapshot(view: View, qube: Qube, name: str) -> VolumeConfig:
    """A snapshot of the first volume up the templates that is no snapshot itself."""
    source = template_of(view.system, qube)
    while source is not None and name in source.volumes and source.volumes[name].snap_on_start:
        source = template_of(view.system, source)
    if source is None or name not in source.volumes:
        raise StorageError(f"the template of qube {qube.name!r} has no volume {name!r}")
    origin = source.volumes[name]
    pool = _pool(view, name, origin.pool)
    return VolumeConfig(
        name=name,
        pool=pool.name,
        vid=_vid(pool, qube, name),
        revisions_to_keep=_revisions(pool),
        rw=True,
        snap_on_start=True,
        size=origin.size,
        source=origin.vid,
    )


def _kernel(view: View, qube: Qube, pool_name: str | None) -> VolumeConfig:
    pool = _pool(view, "kernel", pool_name)
    return VolumeConfig(name="kernel", pool=pool.name, vid=text(own(view, qube, "kernel", kernel)))


def _pool(view: View, volume: str, name: str | None) -> PoolConfig:
    """The pool of that name, else the default one for volumes so called."""
    chosen = name if name is not None else text(read(view, None, f"default_pool_{volume}").value)
    try:
        return view.system.pools[chosen]
    except KeyError:
        raise QubesError(f"no pool {chosen[:64]!r}") from None


def _vid(pool: PoolConfig, qube: Qube, volume: str) -> str:
    if pool.driver not in ("file", "file-reflink"):
        raise StorageError(f"pool {pool.name!r} of driver {pool.driver!r} cannot hold volume {volume!r}")
    folder = "vm-templates" if qube.klass is Klass.TEMPLATE else "appvms"
    return f"{folder}/{qube.name}/{volume}"


def _revisions(pool: PoolConfig) -> int:
    return forms.integer(pool.options.get("revisions_to_keep", "1").encode())
