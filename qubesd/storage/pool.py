"""What a storage driver does, as a protocol of plain blocking verbs (``spec/storage.md`` 1 to 5).

A pool is given a ``VolumeConfig`` with each verb, keeps nothing of it and never changes it; what a volume is
like *now* is read from its images. Whoever calls sees to it that two verbs never work on one volume at once,
and that a volume whose writes go straight into its image (``is_direct``) is left alone while its qube runs.
Every verb that changes images leaves them, wherever it is cut short, as they were before or as they are
after; what else was left then goes with ``tidy``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from qubesd.errors import StorageError
from qubesd.model.state import PoolConfig, VolumeConfig


class Kind(Enum):
    """What becomes of a volume's content when its qube starts and stops."""

    ORIGIN = "keeps what was written"
    SNAPSHOT = "a copy of its source at each start"
    VOLATILE = "empty at each start"


def kind(volume: VolumeConfig) -> Kind:
    """The kind of this volume; ``StorageError`` for a copy that is to be kept, which no driver has."""
    if volume.snap_on_start:
        if volume.save_on_stop:
            raise StorageError(f"volume {volume.vid!r}: no driver keeps what is written to a snapshot")
        if volume.source is None:
            raise StorageError(f"volume {volume.vid!r}: a snapshot without a source")
        return Kind.SNAPSHOT
    if volume.source is not None:
        raise StorageError(f"volume {volume.vid!r}: a source without being a snapshot")
    return Kind.ORIGIN if volume.save_on_stop else Kind.VOLATILE


def is_direct(volume: VolumeConfig) -> bool:
    """Whether the guest writes straight into the kept image: an origin with snapshots disabled."""
    return volume.save_on_stop and volume.revisions_to_keep == -1


@dataclass(frozen=True, slots=True)
class Revision:
    """An earlier state of a volume; ``time`` is in seconds since the epoch, ``size`` in bytes, ``None`` where
    that is not known."""

    id: str
    time: float
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """How full a pool is, in bytes; ``None`` where that is not known or means nothing."""

    size: int | None = None
    usage: int | None = None
    metadata_size: int | None = None
    metadata_usage: int | None = None


class Pool(Protocol):
    """One configured pool. Every verb raises ``StorageError`` where the storage below refuses."""

    @property
    def config(self) -> PoolConfig: ...

    @property
    def directory(self) -> Path | None:
        """Where it lies in the file system; ``None`` for one that is no directory."""

    @property
    def exports_apart(self) -> bool:
        """Whether what is exported stays the same also while the volume is started, written and committed."""

    def open(self) -> None:
        """Check that the pool can be used, and make what it needs; again and again without harm."""

    def close(self) -> None:
        """The pool was forgotten; what is in it stays."""

    def space(self) -> Space: ...

    def kernels(self) -> list[str]:
        """The vids of volumes that are there without belonging to a qube."""

    def vid(self, qube: str, volume: str, template: bool) -> str:
        """The vid of a new volume; ``StorageError`` where the driver holds no volumes of qubes."""

    def check(self, volume: VolumeConfig) -> None:
        """``StorageError`` or ``BadValue`` where the driver cannot hold a volume like this."""

    def verify(self, volume: VolumeConfig) -> None:
        """``StorageError`` where an image that a start needs is missing."""

    def create(self, volume: VolumeConfig) -> None: ...

    def remove(self, volume: VolumeConfig) -> None:
        """Remove every image and revision there is; also of a half-made volume, and of one that is gone."""

    def start(self, volume: VolumeConfig) -> None: ...

    def stop(self, volume: VolumeConfig) -> None:
        """Keep or drop what was written; nothing where the volume is not in use."""

    def is_dirty(self, volume: VolumeConfig) -> bool:
        """Whether an origin holds writes that were not committed."""

    def is_outdated(self, volume: VolumeConfig) -> bool | None:
        """Whether a snapshot's source has moved on since its start; ``None`` where the driver cannot tell."""

    def size(self, volume: VolumeConfig) -> int: ...

    def usage(self, volume: VolumeConfig) -> int: ...

    def path(self, volume: VolumeConfig) -> str | None:
        """What a hypervisor opens; ``None`` where the volume is no block device."""

    def script(self, volume: VolumeConfig) -> str | None:
        """The hotplug script that makes a device of the path; ``None`` where it is one or needs none."""

    def revisions(self, volume: VolumeConfig) -> list[Revision]:
        """The oldest first."""

    def snapshot(self, volume: VolumeConfig) -> str:
        """Make a revision of the last committed state; its id."""

    def revert(self, volume: VolumeConfig, revision: str) -> None:
        """Go back; ``NoSuchRevision`` where there is none of that id."""

    def resize(self, volume: VolumeConfig, size: int) -> None:
        """Make the volume larger, in use or not; making it smaller is refused."""

    def export(self, volume: VolumeConfig) -> AbstractContextManager[Path]:
        """A path to read the last committed state from, which stays the same while it is held."""

    def begin_import(self, volume: VolumeConfig, size: int) -> Path:
        """A new, empty image of ``size`` bytes to write to; refused while there are uncommitted writes."""

    def end_import(self, volume: VolumeConfig, good: bool) -> None:
        """Commit what was written since ``begin_import``, or drop it."""

    def clone(self, volume: VolumeConfig, source_pool: Pool, source: VolumeConfig) -> None:
        """Replace the content, and the size, by another volume's last committed state."""

    def tidy(self) -> None:
        """Remove what was being made when an earlier daemon ended."""
