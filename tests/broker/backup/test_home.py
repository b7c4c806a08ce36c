"""dom0's home: saved as qubesd saves it, and restored into a new folder, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.backup.home import restore_home, target
from qubesd.backup.encryption import Cost
from qubesd.backup.header import QUBES, Header
from qubesd.backup.home import write_home
from qubesd.backup.processes import Processes
from qubesd.backup.writing import ArchiveWriter
from qubesd.errors import QubesError
from tests.broker.backup.forge import ID, PASSPHRASE, store, written
from tests.broker.backup.homes import (
    HOME,
    entry,
    folder,
    home,
    nothing,
    opened,
    snapshot,
    unpacked,
    with_home,
)
from tests.faults.limits import files_end_at
from tests.qubesd.backup.by_hand import needs_scrypt

pytestmark = needs_scrypt

MIB = 1 << 20
LONG = "x" * 120
NO_UTF8 = os.fsdecode(b"caf\xe9")


def saved(place: Path, archive: Path, compression: str | None = "gzip") -> Path:
    """An archive with this home and no qube, as qubesd writes it."""
    marks = {"backup-content": "1", "backup-path": f"dom0-home/{place.name}", "backup-size": "1"}
    left_out = {"backup-content": ""}
    processes = Processes()
    with archive.open("wb") as out:
        head = Header(ID, compression)
        writer = ArchiveWriter(head, PASSPHRASE, out.fileno(), archive.parent, processes, Cost(10, 1, 1))
        writer.begin()
        writer.add_file(QUBES, store({"dom0": marks, "work": left_out, "mail": left_out}))
        writer.add(marks["backup-path"], lambda stream: write_home(place, stream, processes))
    return archive


def restored(archive: Path, place: Path) -> Path:
    with opened(archive) as (opened_, home_):
        return restore_home(opened_, home_, place, nothing)


def lived_in(place: Path) -> Path:
    """A home with all that homes have."""
    (place / ".config/empty").mkdir(parents=True)
    (place / ".config/x").write_text("content")
    (place / "nothing").touch()
    (place / "big").write_bytes(os.urandom(3 * MIB + 7))
    with (place / "sparse").open("wb") as file:
        for number in range(30):
            file.seek(number * MIB)
            file.write(os.urandom(5000))
        file.truncate(40 * MIB)
    (place / "zeros").write_bytes(bytes(2 * MIB))
    (place / "to-elsewhere").symlink_to("/etc/passwd")
    (place / "to-nothing").symlink_to("../" * 50 + LONG)
    (place / "to-a-folder").symlink_to(".config")
    os.link(place / ".config/x", place / "hard")
    os.link(place / "to-elsewhere", place / "hard-to-a-symlink", follow_symlinks=False)
    deep = place / LONG / LONG / LONG
    deep.mkdir(parents=True)
    (deep / LONG).write_text("deep")
    os.link(deep / LONG, deep / "hard")
    (place / "grüße, 世界\n").write_text("names")
    (place / NO_UTF8).mkdir()
    (place / NO_UTF8 / NO_UTF8).write_text("bytes")
    os.mkfifo(place / "pipe", 0o640)
    (place / "secret").write_text("s")
    (place / "read-only/below").mkdir(parents=True)
    (place / "read-only/below/x").write_text("r")
    for name, mode in (("secret", 0o600), ("big", 0o4755), ("read-only/below", 0o555), ("read-only", 0o500)):
        (place / name).chmod(mode)
    for seconds, (above, folders, names) in enumerate(os.walk(place, topdown=False)):
        for name in (*folders, *names):
            os.utime(os.path.join(above, name), (seconds, 10**9 + seconds), follow_symlinks=False)
    return place


@pytest.mark.parametrize("compression", [pytest.param(None, id="plain"), pytest.param("gzip", id="gzip")])
def test_a_home_comes_back(tmp_path: Path, compression: str | None) -> None:
    original = lived_in(tmp_path / "ann")
    place = tmp_path / "place"
    place.mkdir()
    made = restored(saved(original, tmp_path / "archive", compression), place)
    assert made.parent == place
    assert made.name.startswith("home-restore-20")
    assert made.stat().st_mode & 0o7777 == 0o700
    assert os.listdir(place) == [made.name]
    want = snapshot(original)
    kind, mode, *rest = want[b"/big"]
    assert isinstance(mode, int)
    want[b"/big"] = (kind, mode & 0o777, *rest)
    assert snapshot(made) == want
    assert (made / "hard").samefile(made / ".config/x")
    for name in ("sparse", "zeros"):
        assert (made / name).stat().st_blocks * 512 < 3 * MIB


def test_all_of_it_belongs_to_whom_the_home_belongs_to(tmp_path: Path) -> None:
    original = lived_in(tmp_path / "ann")
    place = tmp_path / "place"
    place.mkdir()
    if os.geteuid() == 0:
        os.chown(place, 1234, 4321)
    place.chmod(0o2755)
    made = restored(saved(original, tmp_path / "archive"), place)
    status = place.stat()
    for above, folders, names in os.walk(made):
        for name in (".", *folders, *names):
            owned = os.lstat(os.path.join(above, name))
            assert (owned.st_uid, owned.st_gid) == (status.st_uid, status.st_gid)
            assert not owned.st_mode & 0o7000


def test_a_home_in_the_newer_form_of_tar_comes_back(tmp_path: Path) -> None:
    original = lived_in(tmp_path / "ann")
    words = ["tar", "-c", "--sparse", "--format=posix", "--transform", "flags=rSh;s,^,dom0-home/,"]
    done = subprocess.run([*words, "-C", tmp_path, "ann"], capture_output=True, check=True)
    place = tmp_path / "place"
    place.mkdir()
    (original / "big").chmod(0o755)
    assert snapshot(unpacked(done.stdout, place)) == snapshot(original)


def test_a_time_in_parts_of_a_second(tmp_path: Path) -> None:
    made = unpacked(home(entry(f"{HOME}/x", pax_headers={"mtime": "1000000000.75"})), tmp_path)
    assert (made / "x").stat().st_mtime == 10**9


def interrupt(place: Path) -> None:
    raise KeyboardInterrupt


def take_its_name(place: Path) -> None:
    """Whoever owns the home knows the name before it is there."""
    for hidden in place.glob(".*"):
        taken = place / hidden.stem.removeprefix(".")
        taken.mkdir(exist_ok=True)
        (taken / "mine").touch()


CONTENT = home(
    folder(f"{HOME}/closed", 0o500),
    folder(f"{HOME}/closed/below", 0),
    entry(f"{HOME}/closed/below/x", b"x"),
    entry(f"{HOME}/y", bytes(8 * MIB)),
)


@pytest.mark.parametrize(
    ("happen", "error", "left"),
    [
        pytest.param(interrupt, KeyboardInterrupt, 0, id="interrupted"),
        pytest.param(take_its_name, QubesError, 1, id="name-taken"),
    ],
)
def test_what_fails_leaves_nothing(
    tmp_path: Path, happen: Callable[[Path], None], error: type[BaseException], left: int
) -> None:
    place = tmp_path / "ann"
    place.mkdir()
    with pytest.raises(error):
        unpacked(CONTENT, place, lambda _: happen(place))
    assert len(os.listdir(place)) == left
    assert [list(path.iterdir()) for path in place.iterdir()] == [[path / "mine"] for path in place.iterdir()]


def test_a_disk_that_takes_no_more_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "ann"
    place.mkdir()
    with opened(written(tmp_path / "a", with_home(CONTENT))) as (archive, saved_):
        with files_end_at(4 * MIB), pytest.raises(QubesError, match="unpacked there: File too large"):
            restore_home(archive, saved_, place, nothing)
        assert os.listdir(place) == []
        made = restore_home(archive, saved_, place, nothing)
    assert sorted(os.listdir(made)) == ["closed", "y"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(None, "no user with a home is in the group 'no-such'", id="nobody"),
        pytest.param(Path("/nonexistent"), "no folder to which you may write", id="not-there"),
        pytest.param(Path("/etc/passwd"), "no folder to which you may write", id="file"),
    ],
)
def test_a_home_that_has_nowhere_to_go(given: Path | None, words: str) -> None:
    with pytest.raises(QubesError, match=words):
        target(given, "no-such")


def test_a_home_that_is_a_link_is_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "ann").symlink_to("data")
    made = unpacked(home(entry(f"{HOME}/x", b"x")), target(tmp_path / "ann", "no-such"))
    assert (tmp_path / "data" / made.name / "x").read_bytes() == b"x"


def test_whoever_moves_the_folder_meanwhile_leads_nobody_elsewhere(tmp_path: Path) -> None:
    place, victim = tmp_path / "ann", tmp_path / "victim"
    place.mkdir()
    victim.mkdir()

    def move(_: int) -> None:
        for hidden in place.glob(".home-restore-*"):
            if not hidden.is_symlink():
                hidden.rename(place / "moved")
                hidden.symlink_to(victim)

    unpacked(CONTENT, place, move)
    assert os.listdir(victim) == []
    assert sorted(os.listdir(place / "moved")) == ["closed", "y"]


def killed_while_it_restored(place: Path) -> None:
    """A restore into the folder that came to ``y`` and no further."""
    archive = written(place.parent / "archive", with_home(CONTENT))
    program = (
        "import os, sys; from pathlib import Path; from tests.broker.backup.homes import opened\n"
        "from broker.backup.home import restore_home\n"
        "with opened(Path(sys.argv[1])) as (archive, saved):\n"
        "    restore_home(archive, saved, Path(sys.argv[2]), lambda n: n == 1 or os.kill(os.getpid(), 9))"
    )
    done = subprocess.run([sys.executable, "-c", program, archive, place], check=False, cwd=Path.cwd())
    assert done.returncode == -signal.SIGKILL


def test_what_a_killed_restore_left_goes_with_the_next(tmp_path: Path) -> None:
    """And nothing that a link in it leads to, or that is only called like it."""
    place, precious = tmp_path / "ann", tmp_path / "precious"
    for folder_ in (place, precious):
        folder_.mkdir()
        (folder_ / "x").touch()
    killed_while_it_restored(place)
    (left,) = place.glob(".home-restore-*")
    assert (left / "closed/below/x").read_bytes() == b"x"
    (left / "closed/away").symlink_to(precious)
    others = [
        *(".home-restore-2026-01-31T120000.0123456g", "home-restore-2026-01-31T120000"),
        *(".home-restore-2026-01-31T120000.00000000", ".home-restore-2026-01-31T120000.00000001"),
    ]
    for name in others[:3]:
        (place / name).mkdir(0o755)
    (place / others[3]).symlink_to(precious)
    (place / ".home-restore-2026-01-31T120000.00000002").touch()
    made = unpacked(CONTENT, place)
    assert sorted(os.listdir(place)) == sorted(
        [*others, ".home-restore-2026-01-31T120000.00000002", made.name, "x"]
    )
    assert os.listdir(precious) == ["x"]


def test_a_restore_that_lives_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "ann"
    place.mkdir()

    def another(_: int) -> None:
        before = list(place.rglob("*"))
        with pytest.raises(QubesError, match="another restore puts a home there; wait for it"):
            unpacked(CONTENT, place)
        assert list(place.rglob("*")) == before

    made = unpacked(CONTENT, place, another)
    assert os.listdir(place) == [made.name]
