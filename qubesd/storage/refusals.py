"""What every driver that holds volumes of qubes refuses, in the same words."""

from __future__ import annotations

from qubesd.errors import StorageError
from qubesd.model.state import VolumeConfig
from qubesd.storage.pool import Kind, kind


def of_other_kinds(volume: VolumeConfig, what: str) -> None:
    """``StorageError`` where this cannot be done because the volume does not keep its content."""
    if kind(volume) is not Kind.ORIGIN:
        raise StorageError(f"volume {volume.vid!r}: only a volume that keeps its content can be {what}")


def of_dirty(volume: VolumeConfig, dirty: bool) -> None:
    """``StorageError`` where there are writes that the next commit would lose or be lost in."""
    if dirty:
        raise StorageError(
            f"volume {volume.vid!r}: holds writes that are not committed; shut its qube down, "
            "or start and shut it down after a crash"
        )


def without_revisions(volume: VolumeConfig) -> None:
    """``StorageError`` where a revision would go as soon as it was made."""
    of_other_kinds(volume, "snapshot")
    if volume.revisions_to_keep < 1:
        raise StorageError(f"volume {volume.vid!r}: keeps no revisions; set revisions_to_keep first")


def of_replaced(volume: VolumeConfig) -> StorageError:
    """The error of a second import beside a first."""
    return StorageError(f"volume {volume.vid!r}: is being replaced already; wait until that ends")


def of_present(volume: VolumeConfig) -> StorageError:
    """The error of making a volume where one lies that is not ours."""
    return StorageError(f"volume {volume.vid!r}: its image is there already; move it away")


def of_shrinking(volume: VolumeConfig) -> StorageError:
    """The error of a size below what holds data (decision 0016)."""
    return StorageError(
        f"volume {volume.vid!r}: making a volume smaller destroys what is at its end; "
        "make a new one of that size and copy the files"
    )
