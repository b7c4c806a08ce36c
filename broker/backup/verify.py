"""Reading an archive to its end: whether all of it is what was written, and is what it says it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from broker.backup.archive import Archive, Saved
from broker.backup.fuse import Fuse
from qubesd.core.folders import FIREWALL
from qubesd.store.firewall import load

_PIECE = 1 << 20


def verify(archive: Archive, saved: Iterable[Saved], count: Callable[[int], None]) -> None:
    """Read every file of these qubes. ``count`` is told of the bytes of images that were read.

    Raises:
        QubesError: one is damaged, in the place of another, or hostile.
    """
    for one in saved:
        for volume in one.images:
            path, most = archive.image(one, volume)
            with archive.reading(path, most) as reader:
                for _, piece in reader.pieces():
                    count(len(piece))
        for path in one.small_files():
            content = archive.small(path)
            if path == one.files.get(FIREWALL):
                load(content, path)


def verify_others(archive: Archive, count: Callable[[int], None]) -> None:
    """Read what belongs to no qube and is not dom0's home: that it is what was written, and no bomb. Raises
    ``QubesError`` as ``verify``."""
    for path in archive.other:
        fuse = Fuse(path, archive.size_of(path))
        with archive.stream(path) as stream:
            while piece := stream.read(_PIECE):
                fuse.carry(piece)
                count(len(piece))
