"""Homes in archives that somebody who knows the passphrase has made up: none of them is written, and nothing
outside of it."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Final

import pytest

from broker.backup.archive import Archive
from broker.backup.home import check_home, restore_home
from broker.backup.members import Entry, Kind
from broker.backup.tree import Tree
from qubesd.backup.processes import Processes
from qubesd.errors import QubesError
from tests.broker.backup.forge import PASSPHRASE, sparse, written
from tests.broker.backup.homes import (
    HOME,
    entry,
    folder,
    home,
    link,
    nothing,
    older_sparse,
    opened,
    symlink,
    unpacked,
    with_home,
)
from tests.qubesd.backup.by_hand import needs_scrypt

pytestmark = needs_scrypt

X = f"{HOME}/x"
L = f"{HOME}/l"
GNU: Final = tarfile.GNU_FORMAT
SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}


def long(kind: bytes, size: int, data: bytes = b"") -> bytes:
    """A member that says the name, or the target, of the next."""
    return entry("././@LongLink", data, type=kind, size=size)


def dense(name: str, size: int, **records: str) -> bytes:
    """A sparse file without its end of an archive."""
    return sparse(name, size, b"0\n", b"", **records)[:-1024]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *(
            pytest.param(home(entry(name, b"x")), words, id=f"path-{words.split()[-1]}-{number}")
            for number, (name, words) in enumerate(
                [
                    ("/etc/x", "no path of a home"),
                    ("../x", "no path of a home"),
                    ("..", "no path of a home"),
                    (f"{HOME}/../x", "no path of a home"),
                    (f"{HOME}/../ann/x", "no path of a home"),
                    (f"{HOME}/./x", "no path of a home"),
                    (f"./{HOME}/x", "no path of a home"),
                    (f"{HOME}//x", "no path of a home"),
                    (f"{HOME}/{'x' * 256}", "no path of a home"),
                    ("dom0-home/bob/x", "is outside of it"),
                    ("dom0-home/annette", "is outside of it"),
                    ("dom0-home", "is outside of it"),
                    ("x", "is outside of it"),
                    (f"{HOME}/d/x", "in no folder"),
                    (f"{HOME}/{'x/' * 300}x", "is too long a path"),
                    (f"{HOME}/{'/'.join(['y' * 250] * 17)}", "is too long a path"),
                ]
            )
        ),
        pytest.param(home(entry(X, pax_headers={"path": "../../x"})), "no path", id="records-lead-up"),
        pytest.param(home(entry(X, pax_headers={"path": "/etc/x"})), "no path", id="records-lead-away"),
        pytest.param(home(entry(X, pax_headers={"path": f"{X}\0y"})), "a NUL", id="nul"),
        pytest.param(
            home(link(X, X), entry(L, pax_headers={"linkpath": f"{X}\0y"})), "hard link", id="nul-later"
        ),
        pytest.param(home(symlink(L, "/tmp"), entry(f"{L}/x")), "in no folder", id="through-a-symlink"),
        pytest.param(home(symlink(L, ".."), folder(f"{L}/d")), "in no folder", id="folder-through-a-symlink"),
        pytest.param(
            home(folder(f"{HOME}/d"), symlink(L, "d"), entry(f"{L}/x")), "in no folder", id="inner-symlink"
        ),
        pytest.param(home(symlink(L, "/tmp"), symlink(f"{L}/m", "x")), "in no folder", id="two-symlinks"),
        pytest.param(home(symlink(L, "/tmp"), folder(L), entry(f"{L}/x")), "twice", id="folder-over-symlink"),
        pytest.param(home(symlink(L, "/tmp/x"), entry(L, b"x")), "twice", id="file-over-symlink"),
        pytest.param(home(folder(L), symlink(L, "/tmp")), "twice", id="symlink-over-folder"),
        pytest.param(home(folder(L), entry(L)), "twice", id="file-over-folder"),
        pytest.param(home(entry(L), folder(L)), "twice", id="folder-over-file"),
        pytest.param(home(entry(L), entry(L)), "twice", id="file-twice"),
        pytest.param(home(folder(L), folder(L)), "twice", id="folder-twice"),
        pytest.param(home(entry(L), entry(f"{L}/x")), "in no folder", id="below-a-file"),
        pytest.param(home(folder(HOME)), "twice", id="home-twice"),
        pytest.param(entry(HOME) + bytes(1024), "no folder", id="home-is-a-file"),
        pytest.param(symlink(HOME, "/etc") + bytes(1024), "no folder", id="home-is-a-symlink"),
        pytest.param(entry(X) + bytes(1024), "in no folder", id="no-home"),
        pytest.param(bytes(1024), "is empty", id="nothing"),
        pytest.param(home(link(X, "/etc/passwd")), "no path", id="link-to-elsewhere"),
        pytest.param(home(link(X, "../../etc/passwd")), "no path", id="link-up"),
        pytest.param(home(link(X, "dom0-home/bob/x")), "outside", id="link-to-another-home"),
        pytest.param(home(link(X, L), entry(L)), "hard link to what", id="link-to-what-comes-later"),
        pytest.param(home(link(X, X)), "hard link to what", id="link-to-itself"),
        pytest.param(home(folder(L), link(X, L)), "hard link to what", id="link-to-a-folder"),
        pytest.param(home(link(X, HOME)), "hard link to what", id="link-to-the-home"),
        pytest.param(home(symlink(L, "/etc"), link(X, f"{L}/passwd")), "in no", id="link-through-a-symlink"),
        pytest.param(
            home(entry(X, type=tarfile.LNKTYPE, linkname=X, pax_headers={"linkpath": "/etc/passwd"})),
            "no path",
            id="records-of-a-link",
        ),
        pytest.param(home(link(X, "")), "leads nowhere", id="link-to-nothing"),
        pytest.param(home(symlink(X, "")), "leads nowhere", id="symlink-to-nothing"),
        pytest.param(home(symlink(X, "y" * 4096)), "leads nowhere", id="symlink-to-too-much"),
        *(
            pytest.param(home(entry(X, type=kind)), "is a device", id=name)
            for kind, name in (
                (tarfile.CHRTYPE, "character-device"),
                (tarfile.BLKTYPE, "block-device"),
                (tarfile.CONTTYPE, "contiguous"),
                (b"D", "dump-of-a-folder"),
                (b"V", "volume"),
                (b"M", "continued"),
                (tarfile.XGLTYPE, "global-records"),
                (b"\xff", "unknown"),
            )
        ),
        pytest.param(home(entry(X, linkname="/etc/passwd")), "is a device", id="file-that-leads-somewhere"),
        pytest.param(home(entry(X, b"x", type=tarfile.DIRTYPE)), "none belong", id="folder-with-data"),
        pytest.param(
            home(entry(L), entry(X, b"x", type=tarfile.LNKTYPE, linkname=L)),
            "none belong",
            id="link-with-data",
        ),
        pytest.param(home(entry(X, form=GNU, size=-512)), "below nothing", id="size-below-nothing"),
        pytest.param(home(entry(X, form=GNU, size=1 << 60)), "which no file has", id="size-of-no-file"),
        pytest.param(home(entry(X, size=-512)), "expected a number", id="record-of-a-size"),
        pytest.param(home(entry(X, form=GNU, mtime=1 << 60)), "time of a member", id="time-in-bytes"),
        pytest.param(home(dense(X, 10**15)), "which no file has", id="sparse-size-of-no-file"),
        pytest.param(
            home(older_sparse(X, 100, [(0, 60), (50, 10)], bytes(70))), "overlap", id="older-sparse-overlap"
        ),
        pytest.param(home(older_sparse(X, 100, [(90, 20)], bytes(20))), "overlap", id="older-sparse-behind"),
        pytest.param(home(older_sparse(X, 100, [(0, 20)], bytes(30))), "agree", id="older-sparse-data"),
        pytest.param(home(dense("../x", 10)), "no path", id="sparse-leads-up"),
        pytest.param(home(dense("/etc/x", 10, path=X)), "no path", id="sparse-name-counts"),
        pytest.param(
            home(entry(X, b"x", pax_headers={"GNU.sparse.map": "0,1"})), "not known", id="sparse-0.1"
        ),
        pytest.param(home(entry(X, b"0\n", pax_headers=SPARSE)), "not known", id="sparse-without-a-name"),
        pytest.param(home(long(b"L", 1 << 30)), "a name is too long", id="name-of-a-gib"),
        pytest.param(home(long(b"K", 1 << 30)), "target of a link is too long", id="target-of-a-gib"),
        pytest.param(home(long(b"L", 8, b"/etc/x\0\0"), entry(X)), "a NUL", id="long-name-with-a-nul"),
        pytest.param(home(long(b"L", 7, b"/etc/x\0"), entry(X)), "no path", id="long-name-leads-away"),
        pytest.param(
            home(long(b"L", 2, b"a\0"), long(b"L", 2, b"b\0"), entry(X)), "none belong", id="two-long-names"
        ),
        pytest.param(home(long(b"L", 2, b"a\0")), "cut short", id="long-name-of-nothing"),
        pytest.param(home(entry(X, pax_headers={"x": "y" * 70_000})), "too many records", id="records"),
        pytest.param(home(entry(X, pax_headers={"mtime": "1e99"})), "time of a member", id="time"),
        pytest.param(home(entry(X, pax_headers={"mtime": "9" * 13})), "time of a member", id="time-far-away"),
        pytest.param(home(entry(X, b"x" * 600))[:1600], "cut short", id="cut"),
        pytest.param(home(entry(X))[:-1024], "cut short", id="no-end"),
        pytest.param(home(entry(X))[:-512], "cut short", id="half-an-end"),
        pytest.param(home(entry(X)) + entry(L), "followed by", id="something-behind"),
        pytest.param(home(b"\xff" * 512), "in no tar archive", id="noise"),
        pytest.param(home(entry(X)[:-1] + b"\1"), "in no tar archive", id="damaged-head"),
        pytest.param(home(entry(X, b"x")[:-1] + b"\1"), "followed by", id="something-in-the-padding"),
    ],
)
def test_a_home_that_is_authentic(tmp_path: Path, content: bytes, words: str) -> None:
    """Whoever looks at it first refuses it, and so does whoever would write it, by itself."""
    place = tmp_path / "ann"
    place.mkdir()
    with opened(written(tmp_path / "a", with_home(content))) as (archive, saved):
        with pytest.raises(QubesError, match=words):
            check_home(archive, saved, nothing)
        with pytest.raises(QubesError, match=words):
            restore_home(archive, saved, place, nothing)
    assert os.listdir(place) == []
    assert sorted(os.listdir(tmp_path)) == ["a", "ann"]


def test_no_right_of_its_owner_is_given_to_others(tmp_path: Path) -> None:
    content = home(entry(X, b"x", mode=0o6755), folder(L, 0o7777), entry(f"{L}/y", mode=0o4000))
    made = unpacked(content, tmp_path)
    modes = {name: (made / name).lstat().st_mode & 0o7777 for name in ("x", "l", "l/y", ".")}
    assert modes == {"x": 0o755, "l": 0o777, "l/y": 0, ".": 0o700}


def test_a_home_of_too_many() -> None:
    tree = Tree(HOME, most=2)
    for name in (HOME, X):
        tree.add(Entry(Kind.FOLDER, name.encode(), 0, [], b"", 0o755, 0))
    with pytest.raises(QubesError, match="more than 2 members"):
        tree.add(Entry(Kind.FOLDER, L.encode(), 0, [], b"", 0o755, 0))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("dom0-home/bob", id="not-there"),
        pytest.param("vm2/private.img", id="of-a-qube"),
        pytest.param("../ann", id="up"),
        pytest.param("", id="none"),
    ],
)
def test_a_home_that_is_not_where_it_should_be(tmp_path: Path, path: str) -> None:
    place = written(tmp_path / "a", with_home(home(), path=path))
    with pytest.raises(QubesError, match="the home of dom0 is missing"):
        Archive(place, PASSPHRASE, Processes())
