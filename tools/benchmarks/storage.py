"""Copying and importing whole images.

Beside a clone stands ``cp`` of the same image on the same disk, by the same means; beside an import stands
``dd`` from the same kind of pipe, synced as the import is. All that is compared is synced.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage.reflink import ReflinkPool
from tools.benchmarks.yardstick import Result, Size, result

MIB, GIB = 1 << 20, 1 << 30
RUNS = 5
LIMITS = {"clone-10g-sparse": 1.1, "clone-10g-xfs": 3.0, "import-1g": 1 / 0.8, "import-memory": 1.0}
MEMORY = 40_000_000
"""Bytes that a process may hold that imports, however much."""


Rows = list[Result | Size]


def run(size: int = 10 * GIB, data: int = 500 * MIB, stream: int = GIB, runs: int = RUNS) -> Rows:
    """Every row; the one on XFS is left out, aloud, where no XFS can be mounted."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_STORAGE")) as folder:
        rows: Rows = [_clones("clone-10g-sparse", Path(folder), size, data, runs, "--sparse=always")]
        with _xfs(Path(folder), data) as mounted:
            if mounted is None:
                print("storage: clone-10g-xfs left out: no XFS image can be mounted here", file=sys.stderr)
            else:
                rows.append(_clones("clone-10g-xfs", mounted, size, data, runs, "--reflink=always"))
        rows += _imports(Path(folder), stream, runs)
        return rows


def _clones(name: str, folder: Path, size: int, data: int, runs: int, how: str) -> Result:
    pool = ReflinkPool(PoolConfig("bench", "file-reflink", {"dir_path": str(folder / "pool")}))
    pool.open()
    source, target = (
        VolumeConfig("private", "bench", f"appvms/{qube}/private", rw=True, save_on_stop=True, size=size)
        for qube in ("source", "target")
    )
    pool.create(source)
    image, copy = folder / "pool/appvms/source/private.img", folder / "copy.img"
    _scatter(image, size, data)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(runs):
        theirs.append(_seconds(lambda: _copy(image, copy, how)))
        copy.unlink()
        # Into a volume that holds nothing yet, as that of a new qube does, and as cp's copy begins.
        pool.create(target)
        ours.append(_seconds(lambda: pool.clone(target, pool, source)))
        pool.remove(target)
    shutil.rmtree(folder / "pool")
    return result(name, statistics.median(ours), statistics.median(theirs), LIMITS[name])


def _copy(image: Path, copy: Path, how: str) -> None:
    """Also synced, as a clone is; ``cp`` itself syncs nothing."""
    subprocess.run(["cp", how, str(image), str(copy)], check=True)
    descriptor = os.open(copy, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _scatter(image: Path, size: int, data: int) -> None:
    """Data all over the image, in pieces of a mebibyte."""
    pieces = max(1, data // MIB)
    with image.open("r+b") as file:
        for number in range(pieces):
            file.seek(number * (size // pieces))
            file.write(os.urandom(MIB))
        file.truncate(size)
        os.fsync(file.fileno())


def _imports(folder: Path, size: int, runs: int) -> Rows:
    """An import as a process of its own, for its memory is asked as well."""
    data = folder / "data"
    with data.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    place = folder / "image"
    ours: list[float] = []
    theirs: list[float] = []
    most = 0
    code = (
        "import resource, sys, pathlib; from qubesd.storage.receiving import receive; "
        f"receive(0, pathlib.Path(sys.argv[1]), {size}); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    for _ in range(runs):
        theirs.append(
            _seconds(lambda: _piped(data, ["dd", f"of={place}", "bs=1M", "conv=fsync", "iflag=fullblock"]))
        )
        place.unlink()
        place.touch()
        os.truncate(place, size)
        started = time.perf_counter()
        told = _piped(data, [sys.executable, "-c", code, str(place)])
        ours.append(time.perf_counter() - started)
        most = max(most, int(told) * 1024)
        place.unlink()
    data.unlink()
    return [
        result("import-1g", statistics.median(ours), statistics.median(theirs), LIMITS["import-1g"]),
        Size("import-memory", most, MEMORY, most / MEMORY, LIMITS["import-memory"]),
    ]


def _piped(data: Path, command: list[str]) -> bytes:
    """What the command says that gets the data through a pipe."""
    with subprocess.Popen(["cat", str(data)], stdout=subprocess.PIPE) as source:
        done = subprocess.run(
            command, stdin=source.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
    return done.stdout


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def _xfs(folder: Path, data: int) -> Iterator[Path | None]:
    """A mounted XFS image with room for some copies of the data; ``None`` where that cannot be."""
    image, place = folder / "xfs.img", folder / "xfs"
    place.mkdir()
    image.touch()
    os.truncate(image, 4 * data + GIB)
    try:
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        image.unlink()
