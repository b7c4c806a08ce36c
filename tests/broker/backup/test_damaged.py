"""Archives that somebody without the passphrase has damaged, cut or put together: each is refused."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from qubesd.errors import QubesError
from tests.broker.backup.forge import (
    SIZE,
    Member,
    chunk,
    costly,
    good,
    image,
    inner,
    of_file,
    read,
    written,
)
from tests.qubesd.backup.by_hand import needs_scrypt

pytestmark = needs_scrypt

HEADER, HMAC, QUBES, WORK, NOTES, MAIL = range(6)


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
        pytest.param(after(MAIL, chunk("vm4/x.0000", b"")), "has no place", id="number-with-more-zeros"),
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
        pytest.param(lambda _: bytes(2 << 20), "more zeros than any archive has", id="endless-zeros"),
        pytest.param(
            lambda members: dumped(members) + bytes(2 << 20), "more zeros than any", id="endless-zeros-behind"
        ),
    ],
)
def test_who_has_no_passphrase(tmp_path: Path, change: Callable[[list[Member]], bytes], words: str) -> None:
    place = tmp_path / "a"
    place.write_bytes(change(good()))
    with pytest.raises(QubesError, match=words):
        read(place)


def test_an_older_archive_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    members = [
        Member("backup-header", b"version=3\nhmac-algorithm=SHA512\nencrypted=True\n"),
        Member("backup-header.hmac", b"SHA512(stdin)= " + b"0" * 128),
        Member("qubes.xml.000", b"x" * 300),
        Member("qubes.xml.000.hmac", b"SHA512(stdin)= " + b"0" * 128),
    ]
    with pytest.raises(QubesError, match="an older one is restored by the stock tools"):
        read(written(tmp_path / "a", members))


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
