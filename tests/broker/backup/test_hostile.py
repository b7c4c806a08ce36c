"""Archives that are damaged, cut, put together or made up: each is refused, and nothing is written."""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from broker.backup.archive import Archive
from broker.backup.inner import Fuse
from broker.backup.verify import verify, verify_others
from qubesd.backup.encryption import check_cost
from qubesd.backup.processes import Processes
from qubesd.errors import QubesError
from tests.broker.backup.forge import (
    PASSPHRASE,
    SIZE,
    Member,
    chunk,
    good,
    image,
    inner,
    of_file,
    of_header,
    of_store,
    sealed,
    sparse,
    store,
    tar_of,
    written,
)
from tests.qubesd.backup.by_hand import needs_scrypt
from tests.qubesd.backup.rig import children

pytestmark = needs_scrypt

HEADER, HMAC, QUBES, WORK, NOTES, MAIL = range(6)


def read(place: Path, passphrase: str = PASSPHRASE) -> list[str]:
    """The qubes of an archive that was read to its end, with nothing left behind."""
    spool = place.parent / "spool"
    spool.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    try:
        with closing(Archive(place, passphrase, Processes(), spool)) as archive:
            verify(archive, archive.saved.values(), lambda _: None)
            verify_others(archive, lambda _: None)
            return list(archive.saved)
    finally:
        assert os.listdir(spool) == []
        assert len(os.listdir("/proc/self/fd")) == before
        assert children() == []


def test_what_is_not_hostile_is_read(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a", good())) == ["mail", "work"]


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def damaged(number: int, place: int) -> Callable[[list[Member]], bytes]:
    """One bit of a member's content is another."""

    def change(members: list[Member]) -> bytes:
        member = members[number]
        members[number] = member._replace(content=flipped(member.content, place % len(member.content)))
        return dumped(members)

    return change


def dumped(members: list[Member]) -> bytes:
    return b"".join(member.dump() for member in members)


def cut(number: int, inside: int) -> Callable[[list[Member]], bytes]:
    """It ends before, or so many bytes inside, a member."""
    return lambda members: dumped(members[:number]) + members[number].dump()[:inside]


def without(number: int) -> Callable[[list[Member]], bytes]:
    return lambda members: dumped(members[:number] + members[number + 1 :])


def with_(number: int, member: Member) -> Callable[[list[Member]], bytes]:
    """Another member in the place of this."""
    return lambda members: dumped([*members[:number], member, *members[number + 1 :]])


def after(number: int, member: Member) -> Callable[[list[Member]], bytes]:
    return lambda members: dumped([*members[: number + 1], member, *members[number + 1 :]])


def exchanged(one: int, other: int, names: bool) -> Callable[[list[Member]], bytes]:
    """Two members in each other's place, with their names or without."""

    def change(members: list[Member]) -> bytes:
        first, second = members[one], members[other]
        members[one] = second if names else first._replace(content=second.content)
        members[other] = first if names else second._replace(content=first.content)
        return dumped(members)

    return change


def costly(log_n: int, r: int, p: int) -> bytes:
    """The beginning of an encrypted file, right but for what it asks for."""
    head = struct.pack(">6sBBII32s", b"scrypt", 0, log_n, r, p, bytes(32))
    return head + hashlib.sha256(head).digest()[:16] + bytes(200)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(
            pytest.param(damaged(number, place), words, id=f"bit-{number}-{place}")
            for number, words in (
                (HEADER, "header was changed"),
                (HMAC, "wrong passphrase, or a damaged header"),
                (QUBES, "'qubes.xml.000.enc' is damaged"),
                (WORK, "'vm2/private.img.000.enc' is damaged"),
                (MAIL, "'vm3/private.img.000.enc' is damaged"),
            )
            for place in (0, 70, 100, -1)
        ),
        *(
            pytest.param(cut(number, inside), "cut short|missing|expected", id=f"cut-{number}-{inside}")
            for number in (HEADER, HMAC, QUBES, WORK, MAIL)
            for inside in (0, 600)
        ),
        pytest.param(cut(MAIL, 300), "no member of a tar", id="cut-in-a-head"),
        pytest.param(without(HEADER), "expected 'backup-header'", id="no-header"),
        pytest.param(without(HMAC), "expected 'backup-header.hmac'", id="no-hmac"),
        pytest.param(without(QUBES), "expected 'qubes.xml'", id="no-store"),
        pytest.param(without(WORK), "something of qube 'work' is missing", id="no-image"),
        pytest.param(exchanged(HEADER, HMAC, True), "expected 'backup-header'", id="order-of-headers"),
        pytest.param(exchanged(QUBES, WORK, True), "expected 'qubes.xml'", id="store-later"),
        pytest.param(exchanged(WORK, MAIL, False), "another stands in its place", id="images-exchanged"),
        pytest.param(exchanged(WORK, NOTES, False), "another stands in its place", id="file-as-image"),
        pytest.param(
            with_(
                WORK, of_file("vm2/private.img", inner("vm2/private.img", bytes(SIZE)), "20250101T000000-1")
            ),
            "another stands in its place",
            id="image-of-another-backup",
        ),
        pytest.param(after(WORK, image(2)), "not where it belongs", id="twice"),
        pytest.param(after(MAIL, image(2)), "not where it belongs", id="twice-later"),
        pytest.param(
            after(WORK, chunk("vm2/private.img.001", b"")), "not where it belongs", id="chunk-after-the-last"
        ),
        pytest.param(
            with_(WORK, chunk("vm2/private.img.001", b"")), "not where it belongs", id="first-chunk-missing"
        ),
        pytest.param(after(MAIL, Member("readme", b"hello")), "has no place", id="strange-member"),
        pytest.param(after(MAIL, Member("../../etc/x.000.enc", bytes(200))), "no name", id="up"),
        pytest.param(after(MAIL, Member("/etc/x.000.enc", bytes(200))), "no name", id="absolute"),
        pytest.param(after(MAIL, Member("vm2/./x.000.enc", bytes(200))), "no name", id="dot"),
        pytest.param(after(MAIL, Member("vm2/a\nb.000.enc", bytes(200))), "no name", id="line-end"),
        pytest.param(
            after(MAIL, Member("a/" * 90 + "x.000.enc", bytes(200))), "no plain file", id="long-name"
        ),
        *(
            pytest.param(
                after(QUBES, Member("vm2/x.000.enc", b"", kind, "/etc/shadow")), "no plain file", id=name
            )
            for kind, name in (
                (tarfile.SYMTYPE, "symlink"),
                (tarfile.LNKTYPE, "link"),
                (tarfile.CHRTYPE, "device"),
                (tarfile.FIFOTYPE, "pipe"),
                (tarfile.DIRTYPE, "folder"),
            )
        ),
        pytest.param(with_(HMAC, Member("backup-header.hmac", bytes(5000))), "at most 4096", id="hmac-long"),
        pytest.param(with_(HEADER, Member("backup-header", bytes(5000))), "at most 4096", id="header-long"),
        pytest.param(with_(WORK, Member("vm2/private.img.000.enc", b"x")), "no chunk has", id="chunk-short"),
        pytest.param(
            with_(WORK, Member("vm2/private.img.000.enc", bytes(300))),
            "not encrypted by scrypt",
            id="no-scrypt",
        ),
        pytest.param(
            with_(HMAC, Member("backup-header.hmac", costly(40, 8, 1))), "too much work", id="memory"
        ),
        pytest.param(
            with_(WORK, Member("vm2/private.img.000.enc", costly(20, 8, 1 << 20))), "too much work", id="time"
        ),
        pytest.param(lambda _: b"", "expected 'backup-header', found nothing", id="empty"),
        pytest.param(lambda _: os.urandom(4096), "no member of a tar", id="noise"),
        pytest.param(lambda _: bytes(1 << 16), "found nothing", id="zeros"),
    ],
)
def test_who_has_no_passphrase(tmp_path: Path, change: Callable[[list[Member]], bytes], words: str) -> None:
    place = tmp_path / "a"
    place.write_bytes(change(good()))
    with pytest.raises(QubesError, match=words):
        read(place)


def test_another_passphrase(tmp_path: Path) -> None:
    with pytest.raises(QubesError, match="wrong passphrase"):
        read(written(tmp_path / "a", good()), "correct house")


def test_a_size_below_nothing(tmp_path: Path) -> None:
    info = tarfile.TarInfo("vm2/x.000.enc")
    info.size = -512
    place = tmp_path / "a"
    place.write_bytes(dumped(good()) + info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(QubesError, match="below nothing"):
        read(place)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param({"version": "3"}, "not of version 4", id="version"),
        pytest.param({"encrypted": "False"}, "'encrypted'", id="not-encrypted"),
        pytest.param({"hmac-algorithm": "SHA512"}, "'hmac-algorithm'", id="hmac"),
        pytest.param({"backup-id": ""}, "no identifier", id="no-id"),
        pytest.param({"backup-id": "-x"}, "no identifier", id="id-like-an-option"),
        pytest.param({"compressed": "maybe"}, "whether it is compressed", id="compressed"),
        pytest.param({"compression-filter": "sh"}, "compresses no backup", id="filter"),
        pytest.param({"compression-filter": "../x"}, "a line that is none", id="filter-path"),
        pytest.param({"backup-id": "a=b"}, "a line that is none", id="two-signs"),
    ],
)
def test_a_header_that_is_authentic(tmp_path: Path, text: dict[str, str], words: str) -> None:
    with pytest.raises(QubesError, match=words):
        read(written(tmp_path / "a", [*of_header(**text), *good()[2:]]))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"version=4\nversion=4\n", id="twice"),
        pytest.param(b"encrypted=True\nversion=4\n", id="version-not-first"),
        pytest.param(b"version=4\nnonsense\n", id="no-sign"),
        pytest.param("version=4\nx=é\n".encode(), id="not-ascii"),
    ],
)
def test_a_header_that_cannot_be_read(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(QubesError, match=r"header|version"):
        read(written(tmp_path / "a", [*of_header(text), *good()[2:]]))


NAME = "vm2/private.img"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(inner("vm3/private.img", b"x"), "holds another file", id="other-name"),
        pytest.param(inner("../../etc/shadow", b"x"), "holds another file", id="up"),
        pytest.param(inner("/etc/shadow", b"x"), "holds another file", id="absolute"),
        *(
            pytest.param(inner(NAME, type=kind, linkname="/etc/shadow"), "no plain file", id=name)
            for kind, name in (
                (tarfile.SYMTYPE, "symlink"),
                (tarfile.LNKTYPE, "link"),
                (tarfile.CHRTYPE, "device"),
                (tarfile.DIRTYPE, "folder"),
            )
        ),
        pytest.param(inner(NAME, bytes(2 * SIZE + 1)), "at most 2097152", id="larger-than-the-volume"),
        pytest.param(sparse(NAME, 1 << 40, b"0\n", b""), "at most 2097152", id="sparse-and-larger"),
        pytest.param(tar_of(inner(NAME, b"x"), inner(NAME, b"y")), "followed by", id="two-members"),
        pytest.param(inner(NAME, b"x") + b"more", "followed by", id="something-behind"),
        pytest.param(inner(NAME, b"x") + bytes(2 << 20), "followed by", id="zeros-behind"),
        pytest.param(inner(NAME, b"x" * 5000)[:4000], "cut short", id="cut"),
        pytest.param(inner(NAME, b"x" * 512)[:1024], "cut short", id="no-end"),
        pytest.param(b"", "cut short", id="empty"),
        pytest.param(b"\xff" * 2048, "in no tar archive", id="noise"),
        pytest.param(sparse(NAME, 100, b"2\n0\n60\n50\n10\n", b"x" * 70), "overlap", id="overlap"),
        pytest.param(sparse(NAME, 100, b"1\n90\n20\n", b"x" * 20), "behind its end", id="behind-the-end"),
        pytest.param(sparse(NAME, 100, b"1\n0\n20\n", b"x" * 30), "does not agree", id="too-much-data"),
        pytest.param(sparse(NAME, 100, b"9999999\n", b""), "too many pieces", id="long-list"),
        pytest.param(sparse(NAME, 100, b"1\n-5\n20\n", b"x" * 20), "expected a number", id="below-nothing"),
        pytest.param(sparse(NAME, 100, b"9" * 600, b""), "cannot be read", id="endless-number"),
        pytest.param(sparse(NAME, 100, b"1\n0\n", b""), "list of its data cannot be read", id="short-list"),
        pytest.param(sparse("vm3/private.img", 1, b"0\n", b""), "holds another file", id="sparse-other"),
        pytest.param(
            sparse(NAME, 1, b"0\n", b"", **{"GNU.sparse.major": "2"}), "way that is not known", id="sparse-2"
        ),
        pytest.param(inner(NAME, pax_headers={"x": "y" * 70_000}), "too many records", id="records"),
        pytest.param(inner(NAME, pax_headers={"size": "-1"}), "expected a number", id="record-of-a-size"),
        pytest.param(inner("x", b"999 a=b\n", type=tarfile.XHDTYPE), "records cannot be read", id="record"),
    ],
)
def test_an_image_that_is_authentic(tmp_path: Path, content: bytes, words: str) -> None:
    members = good()
    members[WORK] = of_file(NAME, content)
    with pytest.raises(QubesError, match=words):
        read(written(tmp_path / "a", members))


def test_what_is_no_compressed_stream(tmp_path: Path) -> None:
    members = good()
    members[WORK] = chunk(f"{NAME}.000", b"no gzip")
    with pytest.raises(QubesError, match=r"cut short|gzip failed"):
        read(written(tmp_path / "a", members))


WITH_TYPE = b'<?xml version="1.0"?><!DOCTYPE q [<!ENTITY a "aaaa">]><qubes>&a;</qubes>'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"<qubes>", "not well-formed", id="cut"),
        pytest.param(WITH_TYPE, "document type|entity", id="entities"),
        pytest.param(store({"work": {"backup-path": "../"}}), "no place of its own", id="up"),
        pytest.param(store({"work": {"backup-path": "/"}}), "no place of its own", id="absolute"),
        pytest.param(store({"work": {"backup-path": "vm3/"}}), "no place of its own", id="two-at-one-place"),
        pytest.param(store({"work": {"backup-path": "vm9/"}}), "is missing", id="not-there"),
    ],
)
def test_a_store_that_is_authentic(tmp_path: Path, content: bytes, words: str) -> None:
    members = good()
    members[QUBES] = of_store(content)
    with pytest.raises(QubesError, match=words):
        read(written(tmp_path / "a", members))


def test_a_store_as_large_as_none_is(tmp_path: Path) -> None:
    members = good()
    members[QUBES] = of_file("qubes.xml", inner("qubes.xml", size=65 << 20))
    with pytest.raises(QubesError, match="at most 67108864"):
        read(written(tmp_path / "a", members))


def test_rules_that_are_none(tmp_path: Path) -> None:
    members = [*good(), of_file("vm3/firewall.xml", inner("vm3/firewall.xml", b"<firewall"))]
    with pytest.raises(QubesError, match="no firewall rules"):
        read(written(tmp_path / "a", members))


def test_far_more_than_there_is() -> None:
    piece = b"x" * (1 << 20)
    fuse = Fuse("image", 1 << 20)
    for _ in range(100):
        fuse.carry(bytes(1 << 20))
    for _ in range(1024 + 1000):
        fuse.carry(piece)
    with pytest.raises(QubesError, match="a bomb"):
        fuse.carry(piece)


@pytest.mark.parametrize(
    ("cost", "good"),
    [
        pytest.param((17, 8, 1), True, id="ours"),
        pytest.param((21, 8, 1), True, id="stock"),
        pytest.param((22, 8, 1), True, id="stock-with-much-memory"),
        pytest.param((23, 8, 1), False, id="memory"),
        pytest.param((10, 8, 1 << 14), False, id="time"),
        pytest.param((0, 8, 1), False, id="no-n"),
        pytest.param((63, 8, 1), False, id="n-that-no-machine-has"),
        pytest.param((17, 0, 1), False, id="no-r"),
        pytest.param((17, 8, 0), False, id="no-p"),
    ],
)
def test_cost(cost: tuple[int, int, int], good: bool) -> None:
    if good:
        check_cost(costly(*cost)[:64])
    else:
        with pytest.raises(QubesError, match="too much work"):
            check_cost(costly(*cost)[:64])


def test_a_sealed_file_is_what_the_table_of_costs_reads() -> None:
    check_cost(sealed("x", b"y")[:64])
