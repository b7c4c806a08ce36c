"""One archive with the policy and its history, or with one framed file and its part of the history.

A plain tar, so that the policy can be taken out of it without this program: ``manifest.json``, the files
under ``policy.d``, the changes in ``history``, and what these speak of besides under ``contents``, by hash.

An archive may come from anywhere. It is read whole before anything is written, and what it holds has to be
exactly what its manifest says: regular files of a policy, each with the content that its hash tells of.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from broker.editing.edits import PolicyEdits
from broker.editing.entry import LATEST, MAX_WHY, Author, Entry, entry_of
from broker.editing.history import MAX_HELD
from broker.editing.names import INCLUDE, file_named, is_kept, shown
from broker.editing.record import Record, part_of
from broker.editing.store import MAX_FILES, MAX_TOTAL, token_of
from policy_engine import MAX_FILE
from qubesd.disk import sync
from qubesd.errors import NoSuchPolicyFile, PolicyAdminError

FORMAT = "qubes-policy-backup-1"

MAX_ARCHIVE = 512 * 1024 * 1024
MAX_MEMBERS = 50_000
MAX_ENTRIES = 10_000
"""Bytes of an archive, its members, and the changes that it tells of."""

_NOT_OURS = (ValueError, TypeError, KeyError, OverflowError, RecursionError, tarfile.HeaderError)
"""What reading raises where the archive is not what it should be."""

_MANIFEST, _HISTORY, _POLICY, _CONTENTS = "manifest.json", "history", "policy.d/", "contents/"
_BLOCK = 512
_TOKEN = re.compile(r"sha256:[0-9a-f]{64}")
_PERSON = re.compile(r"[ -~]{0,64}")


@dataclass(frozen=True, slots=True)
class Backup:
    """What an archive holds. ``made`` is in seconds of the epoch."""

    record: Record
    made: float


class BackupError(PolicyAdminError):
    """The archive cannot be read or written, or is none of ours; nothing was restored."""


def save(edits: PolicyEdits, place: Path, frame: str = "") -> Record:
    """Write the policy and its history to a file, in the place of one that is there; what was written.

    Args:
        frame: the name of an included file; the backup is of it and of its changes alone. Empty for the whole
            policy.

    Raises:
        BadPolicyName, NoSuchPolicyFile: this is no name, or there is no such file.
        PolicyAdminError: as all edits.
        OSError: the archive cannot be written.
    """
    file = file_named(INCLUDE + frame) if frame else ""
    record = edits.record(file)
    if file and file not in record.files:
        raise NoSuchPolicyFile(f"there is no file {shown(file)}")
    unfinished = place.with_name(f".{place.name}.new")
    try:
        with open(unfinished, "wb", opener=_private) as archive:
            write(record, archive, time.time())
            archive.flush()
            os.fsync(archive.fileno())
        unfinished.rename(place)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync(place.absolute().parent)
    return record


def restore(edits: PolicyEdits, author: Author, backup: Backup, why: str = "") -> Entry:
    """Make the policy, or the one file that the backup is of, what it was, as one change. The changes that
    the backup tells of come into the history before it.

    Raises:
        PolicySyntaxError: with it the policy would not be whole.
        PolicyAdminError, StoreError: as all edits.
    """
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(backup.made))
    return edits.restore(author, backup.record, why or f"restored from the backup of {made}")


def narrowed(backup: Backup, frame: str) -> Backup:
    """What a backup has of one included file, by its name.

    Raises:
        BadPolicyName: this is no name.
        NoSuchPolicyFile: the backup has no such file.
    """
    file = file_named(INCLUDE + frame)
    if file not in backup.record.files:
        raise NoSuchPolicyFile(f"the backup has no file {shown(file)}")
    return Backup(part_of(backup.record, file), backup.made)


def changes(edits: PolicyEdits, backup: Backup) -> dict[str, bytes | None]:
    """What ``restore`` would change, by file; ``None`` for what it would take away."""
    record = backup.record
    now, wanted = edits.files(), record.files
    files = [record.frame] if record.frame else sorted({*now, *wanted})
    return {file: wanted.get(file) for file in files if now.get(file) != wanted.get(file)}


def write(record: Record, archive: BinaryIO, made: float) -> None:
    """Write a record as an archive; ``made`` is in seconds of the epoch. Raises ``OSError``."""
    files = {file: token_of(content) for file, content in sorted(record.files.items())}
    manifest = {"format": FORMAT, "made": made, "frame": record.frame, "files": files}
    contents = {token.removeprefix("sha256:"): text for token, text in sorted(record.contents.items())}
    members = {
        _MANIFEST: json.dumps(manifest, indent=1).encode("ascii") + b"\n",
        _HISTORY: b"".join(entry.line() for entry in record.entries),
        **{_POLICY + file: content for file, content in sorted(record.files.items())},
        **{_CONTENTS + digest: content for digest, content in contents.items()},
    }
    for name, content in members.items():
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = len(content), int(made), 0o644
        archive.write(member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        archive.write(content)
        archive.write(bytes(-len(content) % _BLOCK))
    archive.write(bytes(2 * _BLOCK))


def load(place: Path) -> Backup:
    """Read an archive, all of it. Raises ``BackupError``, ``OSError``."""
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_ARCHIVE:
            raise BackupError(f"{place}: expected a file of at most {MAX_ARCHIVE} bytes")
        with open(descriptor, "rb", closefd=False) as archive:
            return read(archive)
    except _NOT_OURS as error:
        raise BackupError(f"{place}: this is no backup of a policy: {error}") from error
    finally:
        os.close(descriptor)


def read(archive: BinaryIO) -> Backup:
    """Read an archive. Raises one of ``_NOT_OURS`` where it is no backup of a policy."""
    untrusted_members = dict[str, bytes]()
    for name, content in _members(archive):
        if name in untrusted_members:
            raise ValueError(f"{name!a} is in it twice")
        untrusted_members[name] = content
    manifest = json.loads(untrusted_members.pop(_MANIFEST))
    if manifest["format"] != FORMAT:
        raise ValueError(f"expected the format {FORMAT}")
    made, frame = float(manifest["made"]), manifest["frame"]
    if not 0 <= made < LATEST:
        raise ValueError("it was made at no such time")
    if frame != "" and not (_is_file(frame) and frame.startswith(INCLUDE)):
        raise ValueError(f"{frame!a} is no included file")
    files = {file: untrusted_members.pop(_POLICY + file) for file in _checked_tree(manifest["files"], frame)}
    for file, content in files.items():
        _check_content(content, manifest["files"][file])
    untrusted_lines = untrusted_members.pop(_HISTORY).splitlines()
    if len(untrusted_lines) > MAX_ENTRIES:
        raise ValueError(f"it tells of more than {MAX_ENTRIES} changes")
    entries = [_checked_entry(entry_of(line), frame) for line in untrusted_lines]
    contents = {}
    for name, content in untrusted_members.items():
        token = f"sha256:{name.removeprefix(_CONTENTS)}"
        _check_content(content, token)
        contents[token] = content
    record = Record(files, entries, contents, frame)
    _check_trees(record)
    return Backup(record, made)


def _members(archive: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the members. There are regular files alone, without any extension of tar:
    no links, no holes, no second names. Raises ``ValueError``, ``tarfile.HeaderError``."""
    total = 0
    for _ in range(MAX_MEMBERS):
        header = archive.read(_BLOCK)
        if not header.strip(b"\0"):
            return
        member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        limit = MAX_FILE if member.name.startswith((_POLICY, _CONTENTS)) else MAX_TOTAL
        if member.type != tarfile.REGTYPE or not 0 <= member.size <= limit:
            raise ValueError(f"{member.name[:100]!a} is no file of a policy")
        total += member.size
        if total > MAX_TOTAL + MAX_HELD:
            raise ValueError("it holds too much")
        content = archive.read(member.size)
        padding = archive.read(-member.size % _BLOCK)
        if len(content) + len(padding) != member.size + -member.size % _BLOCK:
            raise ValueError("it ends too early")
        yield member.name, content
    raise ValueError(f"it has more than {MAX_MEMBERS} members")


def _checked_tree(untrusted_tree: Any, frame: str) -> Mapping[str, str]:
    """The files of a policy and their tokens; of the one file alone where it is about one."""
    if not isinstance(untrusted_tree, dict) or len(untrusted_tree) > MAX_FILES:
        raise ValueError(f"expected at most {MAX_FILES} files")
    for file, token in untrusted_tree.items():
        if not _is_file(file) or (frame and file != frame) or not _is_token(token):
            raise ValueError(f"{file!a} is no file of a policy that can be here")
    return untrusted_tree


def _checked_entry(untrusted_entry: Entry, frame: str) -> Entry:
    author = untrusted_entry.author
    tokens = [token for one in untrusted_entry.files for token in (one.before, one.after)]
    if (
        not (_PERSON.fullmatch(author.qube) and _PERSON.fullmatch(author.user))
        or len(untrusted_entry.why) > MAX_WHY
        or not all(_is_file(one.file) for one in untrusted_entry.files)
        or not all(token is None or _is_token(token) for token in tokens)
        or len(untrusted_entry.files) > 2 * MAX_FILES
        or (frame != "" and untrusted_entry.frame != frame)
    ):
        raise ValueError("it tells of a change that cannot be")
    return untrusted_entry


def _check_trees(record: Record) -> None:
    """See that all that the entries speak of is there, and nothing else."""
    known = record.all_contents()
    trees = {token: json.loads(known[token]) for token in {entry.tree for entry in record.entries}}
    needed = set[str]()
    for entry in record.entries:
        tree = _checked_tree(trees[entry.tree], entry.frame)
        if any(tree.get(one.file) != one.after for one in entry.files):
            raise ValueError("it tells of a change that cannot be")
        needed |= {entry.tree, *tree.values()}
    if not record.contents.keys() <= needed <= known.keys():
        raise ValueError("what it holds is not what it tells of")


def _check_content(content: bytes, untrusted_token: str) -> None:
    if token_of(content) != untrusted_token:
        raise ValueError(f"{untrusted_token[:80]!a} is damaged")


def _is_file(untrusted_file: object) -> bool:
    return isinstance(untrusted_file, str) and is_kept(untrusted_file)


def _is_token(untrusted_token: object) -> bool:
    return isinstance(untrusted_token, str) and _TOKEN.fullmatch(untrusted_token) is not None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
