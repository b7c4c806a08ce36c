"""A backup brings the policy and its history back, whole or by frame; a hostile archive brings nothing."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.editing import backup as policy_backup
from broker.editing.backup import BackupError, changes, load, narrowed, restore, save, write
from broker.editing.edits import ANY_TOKEN
from broker.editing.entry import Author, FileChange
from broker.editing.store import token_of
from policy_engine import MAX_FILE
from qubesd.errors import NoSuchPolicyFile, PolicySyntaxError
from tests.broker.editing.edits_rig import DIALECT, FRAME, ME, RULE, Desk, told

ANN = Author("ann")
TEAM = DIALECT + "* * a b allow\n"


@pytest.fixture(name="desk")
def fixture_desk(tmp_path: Path) -> Desk:
    """Six changes, the last two of which are about the frame."""
    desk = Desk(tmp_path / "old", {"10-frame.policy": FRAME, "30-user.policy": RULE})
    desk.edits.replace(ME, "30-user.policy", ANY_TOKEN, RULE.encode() * 2, "twice")
    desk.edits.replace(ANN, "include/team", ANY_TOKEN, DIALECT.encode())
    desk.edits.change(ME, {"include/team": TEAM.encode(), "20-more.policy": RULE.encode()}, "two files")
    return desk


@pytest.fixture(name="fresh")
def fixture_fresh(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "new", {"10-frame.policy": FRAME, "90-own.policy": RULE})


def test_a_policy_and_its_history_come_back_elsewhere(desk: Desk, fresh: Desk, tmp_path: Path) -> None:
    place = tmp_path / "backup.tar"
    save(desk.edits, place)
    backup = load(place)
    assert len(changes(fresh.edits, backup)) == 4
    entry = restore(fresh.edits, ME, backup)
    assert fresh.files() == desk.files()
    entries = fresh.edits.history()
    assert [told(one) for one in entries] == [
        ("", "as it was found", ["10-frame.policy", "90-own.policy"]),
        *[told(one) for one in desk.edits.history()],
        ("dom0 (me)", entry.why, ["include/team", "20-more.policy", "30-user.policy", "90-own.policy"]),
    ]
    assert entry.why.startswith("restored from the backup of 2")
    assert [one.number for one in entries] == [1, 2, 3, 4, 5, 6]
    for mine, other in zip(entries[1:5], desk.edits.history(), strict=True):
        assert fresh.edits.state(mine.number) == desk.edits.state(other.number)
    # What was here before is remembered as well.
    fresh.edits.rollback(ME, 1)
    assert set(fresh.files()) == {"10-frame.policy", "90-own.policy"}


def test_restoring_again_brings_no_change_twice(desk: Desk, fresh: Desk, tmp_path: Path) -> None:
    save(desk.edits, tmp_path / "backup.tar")
    backup = load(tmp_path / "backup.tar")
    for count in (6, 7):
        entry = restore(fresh.edits, ME, backup)
        assert len(fresh.edits.history()) == count
    assert entry.files == ()
    assert changes(fresh.edits, backup) == {}


@pytest.mark.parametrize(
    "narrow", [pytest.param(True, id="of-a-whole-one"), pytest.param(False, id="made-so")]
)
def test_a_backup_of_a_frame_holds_it_and_its_changes_alone(
    narrow: bool, desk: Desk, fresh: Desk, tmp_path: Path
) -> None:
    place = tmp_path / "backup.tar"
    save(desk.edits, place, frame="" if narrow else "team")
    backup = narrowed(load(place), "team") if narrow else load(place)
    if not narrow:
        assert b"20-more" not in place.read_bytes()
        assert RULE.encode() not in place.read_bytes()
    restore(fresh.edits, ME, backup)
    assert set(fresh.files()) == {"10-frame.policy", "90-own.policy", "include/team"}
    entries = fresh.edits.history()
    assert [told(one) for one in entries[1:3]] == [
        ("ann", "", ["include/team"]),
        ("dom0 (me)", "two files", ["include/team"]),
    ]
    fresh.edits.rollback(ME, entries[1].number)
    assert fresh.files()["include/team"] == DIALECT.encode()
    assert "90-own.policy" in fresh.files()


@pytest.mark.parametrize("frame", ["other", "loose"])
def test_a_frame_that_is_not_there(frame: str, desk: Desk, tmp_path: Path) -> None:
    place = tmp_path / "backup.tar"
    with pytest.raises(NoSuchPolicyFile):
        save(desk.edits, place, frame)
    assert not place.exists()
    save(desk.edits, place)
    with pytest.raises(NoSuchPolicyFile):
        narrowed(load(place), frame)


def test_a_policy_that_would_not_be_whole_is_not_restored(desk: Desk, fresh: Desk, tmp_path: Path) -> None:
    desk.write("40-broken.policy", "oops\n")
    save(desk.edits, tmp_path / "backup.tar")
    before = fresh.files()
    with pytest.raises(PolicySyntaxError, match=r"40-broken\.policy:1"):
        restore(fresh.edits, ME, load(tmp_path / "backup.tar"))
    assert fresh.files() == before
    assert len(fresh.edits.history()) == 1


def test_a_backup_is_private_and_takes_the_place_of_the_one_before(desk: Desk, tmp_path: Path) -> None:
    place = tmp_path / "backup.tar"
    place.write_bytes(b"x" * 1_000_000)
    save(desk.edits, place)
    assert place.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["backup.tar"]
    with tarfile.open(place) as archive:
        assert archive.getnames()[:2] == ["manifest.json", "history"]
        assert "policy.d/include/team" in archive.getnames()


def archive_of(*members: tuple[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def special(kind: bytes, name: str = "policy.d/30-user.policy", link: str = "/etc/shadow") -> bytes:
    """An archive that begins with a member of this kind."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def manifest(**more: Any) -> tuple[str, bytes]:
    told = {"format": "qubes-policy-backup-1", "made": 1.0, "frame": "", "files": {}, **more}
    return "manifest.json", json.dumps(told).encode()


USER = token_of(RULE.encode())
HISTORY = ("history", b"")
FILE = ("policy.d/30-user.policy", RULE.encode())
HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "no-archive": b"oops" * 1000,
    "no-manifest": archive_of(HISTORY),
    "manifest-of-nothing": archive_of(("manifest.json", b"[]"), HISTORY),
    "deep-manifest": archive_of(("manifest.json", b"[" * 100_000), HISTORY),
    "other-format": archive_of(manifest(format="x"), HISTORY),
    "no-time": archive_of(manifest(made=float("nan")), HISTORY),
    "large-time": archive_of(("manifest.json", manifest()[1].replace(b"1.0", b"1" * 400)), HISTORY),
    "no-history": archive_of(manifest()),
    "file-missing": archive_of(manifest(files={"30-user.policy": USER}), HISTORY),
    "file-too-many": archive_of(manifest(), HISTORY, FILE),
    "file-twice": archive_of(manifest(files={"30-user.policy": USER}), HISTORY, FILE, FILE),
    "file-damaged": archive_of(manifest(files={"30-user.policy": USER}), HISTORY, (FILE[0], b"other")),
    "file-too-large": archive_of(manifest(), HISTORY, (FILE[0], bytes(MAX_FILE + 1))),
    "path-upwards": archive_of(
        manifest(files={"../../evil.policy": USER}), HISTORY, ("policy.d/../../evil.policy", RULE.encode())
    ),
    **{
        f"name-{name!a}": archive_of(manifest(files={name: USER}), HISTORY, (f"policy.d/{name}", FILE[1]))
        for name in ("/etc/x", "A.policy", ".a.policy", "include/", "include/a/b", "a", "", "a\n.policy", ".")
    },
    "frame-elsewhere": archive_of(manifest(frame="30-user.policy"), HISTORY),
    "frame-with-more": archive_of(manifest(frame="include/x", files={"30-user.policy": USER}), HISTORY, FILE),
    "content-of-nothing": archive_of(manifest(), HISTORY, (f"contents/{USER[7:]}", RULE.encode())),
    "content-damaged": archive_of(manifest(), HISTORY, (f"contents/{USER[7:]}", b"other")),
    "content-elsewhere": archive_of(manifest(), HISTORY, ("evil", b"x")),
    "line-of-nothing": archive_of(manifest(), ("history", b"{}\n")),
    "too-many-lines": archive_of(manifest(), ("history", b"{}\n" * 10_001)),
    "symbolic-link": special(tarfile.SYMTYPE),
    "hard-link": special(tarfile.LNKTYPE),
    "device": special(tarfile.CHRTYPE),
    "pipe": special(tarfile.FIFOTYPE),
    "folder": special(tarfile.DIRTYPE, "policy.d/"),
    "sparse": special(tarfile.GNUTYPE_SPARSE),
    "long-name": special(tarfile.GNUTYPE_LONGNAME),
    "extended": special(tarfile.XHDTYPE),
    "cut-short": archive_of(manifest(), HISTORY)[:700],
}


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in HOSTILE.items()])
def test_a_hostile_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    place = tmp_path / "hostile.tar"
    place.write_bytes(content)
    with pytest.raises(BackupError, match="this is no backup of a policy"):
        load(place)


def test_the_frame_of_the_hostile_ones_is_good(tmp_path: Path) -> None:
    """What these archives are made of is none of the reasons for which they are refused."""
    place = tmp_path / "good.tar"
    place.write_bytes(archive_of(manifest(files={"30-user.policy": USER}), HISTORY, FILE))
    assert load(place).record.files == {"30-user.policy": RULE.encode()}


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda entry: replace(entry, author=Author("a\x1b[2J")), id="author"),
        pytest.param(lambda entry: replace(entry, why="x" * 10_000), id="comment"),
        pytest.param(lambda entry: replace(entry, time=-1.0), id="time"),
        pytest.param(lambda entry: replace(entry, files=(FileChange("../x", None, None),)), id="file"),
        pytest.param(lambda entry: replace(entry, files=(FileChange("include/x", "1", None),)), id="token"),
        pytest.param(lambda entry: replace(entry, files=(FileChange("include/x", None, USER),)), id="other"),
        pytest.param(lambda entry: replace(entry, tree=USER), id="tree"),
        pytest.param(lambda entry: replace(entry, tree="sha256:" + "0" * 64), id="lost-tree"),
        pytest.param(lambda entry: replace(entry, frame="include/x"), id="frame"),
    ],
)
def test_a_change_that_cannot_be_is_refused(spoil: Callable[[Any], Any], desk: Desk, tmp_path: Path) -> None:
    record = desk.edits.record()
    place = tmp_path / "hostile.tar"
    with place.open("wb") as archive:
        write(replace(record, entries=[spoil(record.entries[0]), *record.entries[1:]]), archive, 1.0)
    with pytest.raises(BackupError):
        load(place)


def test_an_archive_of_endless_members_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_backup, "MAX_MEMBERS", 2)
    (tmp_path / "hostile.tar").write_bytes(archive_of(manifest(), HISTORY, FILE))
    with pytest.raises(BackupError, match="more than 2 members"):
        load(tmp_path / "hostile.tar")


def test_an_archive_that_is_no_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="expected a file"):
        load(tmp_path)
