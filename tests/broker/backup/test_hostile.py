"""Archives that somebody who knows the passphrase has made up: each is refused."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from broker.backup.fuse import Fuse
from qubesd.backup.encryption import check_cost
from qubesd.errors import QubesError
from tests.broker.backup.forge import (
    ID,
    SIZE,
    chunk,
    costly,
    good,
    inner,
    of_file,
    of_header,
    of_store,
    read,
    sealed,
    sparse,
    store,
    tar_of,
    written,
)
from tests.qubesd.backup.by_hand import needs_scrypt

pytestmark = needs_scrypt

HEADER, HMAC, QUBES, WORK, NOTES, MAIL = range(6)


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


WORDS = b"version=4 encrypted=True compressed=True hmac-algorithm=scrypt backup-id=%s " % ID.encode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"version=4\nversion=4\n", id="twice"),
        pytest.param(b"encrypted=True\nversion=4\n", id="version-not-first"),
        pytest.param(b"version=4\nnonsense\n", id="no-sign"),
        *(
            pytest.param(WORDS.replace(b" ", other), id=f"ends-of-lines-{other!r}")
            for other in (b"\r\n", b"\r", b"\f", b"\n\n")
        ),
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
        pytest.param(
            tar_of(inner("x", b"999 a=b\n", type=tarfile.XHDTYPE)[:1024], inner(NAME, b"x")),
            "records cannot be read",
            id="record",
        ),
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


@pytest.mark.parametrize("path", ["vm3/of-an-extension", "vm3/x.img", "vm3/folder/file"])
def test_nothing_goes_unread(tmp_path: Path, path: str) -> None:
    """A file that belongs to a qube, and is none that we know."""
    members = [*good(), chunk(f"{path}.000", b"no gzip")]
    with pytest.raises(QubesError, match=r"cut short|gzip failed"):
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
