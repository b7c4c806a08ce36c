"""Backups in a real core: what an archive holds, and where it goes."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from broker.backup.archive import Archive
from qubesd.api.method import Text
from qubesd.backup.processes import Processes
from qubesd.backup.writing import CHUNK
from qubesd.core.backup_content import Content, described
from qubesd.errors import (
    QubeNotHalted,
)
from qubesd.events import BackupProgress
from qubesd.model.state import Klass, Qube, System
from tests.qubesd.backup.by_hand import members, needs_scrypt, unpacked
from tests.qubesd.backup.rig import PASSPHRASE, Vault, at, script, until

pytestmark = needs_scrypt

MIB = 1 << 20


def fill(image: Path, *places: int) -> None:
    """Put something into a sparse image at these places."""
    with image.open("r+b") as file:
        for place in places:
            file.seek(place)
            file.write(os.urandom(3000))


def same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", "-s", one, other], check=False).returncode == 0


@pytest.mark.parametrize(
    "compression",
    [
        pytest.param("true", id="gzip"),
        pytest.param("false", id="none"),
        pytest.param("xz", id="xz"),
        pytest.param("bzip2", id="bzip2"),
    ],
)
def test_an_archive_is_read_by_hand(tmp_path: Path, compression: str) -> None:
    async def save(vault: Vault) -> None:
        house = vault.house
        fill(vault.image("work"), 0, 5 * MIB, 60_000_007)
        await house.do("admin.vm.firewall.Set", "work", payload="action=drop\n")
        await house.do("admin.vm.notes.Set", "work", payload="all of it\n")
        house.told.clear()
        archive = await vault.back_up(include="[work, far, '@type:TemplateVM']", compression=compression)
        files = unpacked(archive, PASSPHRASE)
        work, template, far = (house.qube(name) for name in ("work", "debian-13", "far"))
        assert members(archive) == [
            *("backup-header", "backup-header.hmac", "qubes.xml.000.enc"),
            f"vm{template.qid}/root.img.000.enc",
            f"vm{template.qid}/private.img.000.enc",
            f"vm{far.qid}/empty.000.enc",
            *(f"vm{work.qid}/{name}.000.enc" for name in ("firewall.xml", "notes.txt", "private.img")),
        ]
        image = files / f"vm{work.qid}/private.img"
        assert same(image, vault.image("work"))
        assert image.stat().st_blocks * 512 < MIB
        assert same(files / f"vm{template.qid}/root.img", vault.image("debian-13", "root", "vm-templates"))
        assert (files / f"vm{work.qid}/notes.txt").read_text() == "all of it\n"
        assert "drop" in (files / f"vm{work.qid}/firewall.xml").read_text()
        check_described(files / "qubes.xml", {"work": work.qid, "debian-13": template.qid, "far": far.qid})
        assert house.qube("work").properties["backup_timestamp"] == pytest.approx(time.time(), abs=60)
        assert ("", "backup-progress", {"backup_profile": "p", "progress": "0.0"}) in house.told

    async def with_far(vault: Vault) -> None:
        await vault.house.do("admin.vm.Create.RemoteVM", payload="name=far label=red")
        await save(vault)

    at(tmp_path, with_far)


def check_described(file: Path, saved: dict[str, int]) -> None:
    """Whether the store in the archive has all qubes, and says which of them are in it."""
    found = {}
    for domain in ElementTree.parse(file).getroot().iter("domain"):
        names = [prop.text for prop in domain.iter("property") if prop.get("name") == "name"]
        features = {one.get("name"): one.text or "" for one in domain.iter("feature")}
        found[(names or ["dom0"])[0]] = features
    assert found.keys() >= {"dom0", "work", "sys-net", "web-dvm", "debian-13"}
    assert {name for name, features in found.items() if features["backup-content"] == "1"} == saved.keys()
    for name, qid in saved.items():
        assert found[name]["backup-path"] == f"vm{qid}/"
        assert found[name]["backup-size"].isdigit()


def test_what_is_waiting_to_be_used_is_not_saved() -> None:
    features = {"preload-dispvm": "disp1", "preload-dispvm-early": "1", "preload-dispvm-max": "2", "x": ""}
    dvm = Qube("dvm", 3, "u3", Klass.APP, features=features)
    other = Qube("other", 4, "u4", Klass.APP, features=features)
    system = System().with_qube(dvm).with_qube(other)
    found = described(system, [Content(dvm, "vm3/", size=5)]).qubes
    marks = {"backup-content": "1", "backup-path": "vm3/", "backup-size": "5"}
    assert found["dvm"].features == {"preload-dispvm-max": "2", "x": "", **marks}
    assert found["other"].features == {**features, "backup-content": ""}


def test_a_stream_that_ends_on_the_border_of_a_chunk_is_followed_by_an_empty_one(tmp_path: Path) -> None:
    heads = 6 * 512
    """Records with their header, the header, the list of the data, and the end of the archive."""

    async def save(vault: Vault) -> None:
        piece = os.urandom(MIB)
        with vault.image("work").open("r+b") as file:
            for _ in range(99):
                file.write(piece)
            file.write(piece[:-heads])
            file.truncate()
        archive = await vault.back_up(compression="false")
        qid = vault.house.qube("work").qid
        assert members(archive)[-2:] == [f"vm{qid}/private.img.{number:03}.enc" for number in (0, 1)]
        assert archive.stat().st_size > CHUNK
        assert same(unpacked(archive, PASSPHRASE) / f"vm{qid}/private.img", vault.image("work"))
        with (
            closing(Archive(archive, PASSPHRASE, Processes(), vault.folder)) as opened,
            opened.reading(f"vm{qid}/private.img", 100 * MIB) as reader,
        ):
            assert b"".join(data for _, data in reader.pieces()) == vault.image("work").read_bytes()

    at(tmp_path, save)


def test_a_running_qube_is_saved_as_it_was_before_its_start(tmp_path: Path) -> None:
    async def save(vault: Vault) -> None:
        house = vault.house
        fill(vault.image("work"), MIB)
        await house.do("admin.vm.Start", "work")
        fill(vault.image("work", "private-dirty"), 2 * MIB)
        archive = await vault.back_up()
        image = unpacked(archive, PASSPHRASE) / f"vm{house.qube('work').qid}/private.img"
        assert same(image, vault.image("work"))
        told = await house.answer("admin.backup.Info", argument="p")
        assert isinstance(told, Text)
        assert "(running; saved as it was before its start)" in told.content

    at(tmp_path, save)


def test_a_volume_without_a_state_apart_is_saved_while_its_qube_is_halted(tmp_path: Path) -> None:
    async def save(vault: Vault) -> None:
        house = vault.house
        await house.do("admin.vm.volume.Set.revisions_to_keep", "work", "private", "-1")
        await house.do("admin.vm.Start", "work")
        with pytest.raises(QubeNotHalted, match="shut the qube down"):
            await vault.back_up()
        vault.check_nothing_is_left()
        await house.do("admin.vm.Kill", "work")
        await vault.back_up()

    at(tmp_path, save)


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        pytest.param({"include": "null"}, ["debian-13", "sys-net", "web-dvm", "work"], id="property"),
        pytest.param({"include": "['@tag:keep']"}, ["sys-net"], id="tag"),
        pytest.param({"include": "['$tag:keep', work]"}, ["sys-net", "work"], id="old-spelling"),
        pytest.param({"include": "['@type:AppVM']", "exclude": "[work]"}, ["sys-net", "web-dvm"], id="type"),
        pytest.param(
            {"include": "['$type:AppVM']", "exclude": "['$tag:keep']"}, ["web-dvm", "work"], id="both"
        ),
        pytest.param({"include": "[]"}, [], id="none"),
        pytest.param({"include": "[work, gone]"}, ["work"], id="unknown"),
        pytest.param({"passphrase_text": None}, ["work"], id="no-passphrase"),
    ],
)
def test_selectors(tmp_path: Path, settings: dict[str, str | None], chosen: list[str]) -> None:
    async def look(vault: Vault) -> None:
        await vault.house.do("admin.vm.tag.Set", "sys-net", "keep")
        vault.profile(**settings)
        summary = await vault.house.core.backups.info("p")
        assert [content.qube.name for content in summary.contents] == chosen
        left = {"dom0", "debian-13", "sys-net", "web-dvm", "work"} - set(chosen)
        assert {qube.name for qube in summary.left_out} == left

    at(tmp_path, look)


def test_another_qube_gets_the_archive_from_a_service(tmp_path: Path) -> None:
    async def save(vault: Vault) -> None:
        fill(vault.image("work"), 0)
        await vault.back_up(destination_vm="sys-net", destination_path='"/a\\r\\n path"')
        assert (tmp_path / "line").read_bytes() == b"/a path\n"
        assert "sys-net domain-cmd-pre-run" in vault.house.names()
        files = unpacked(tmp_path / "sent", PASSPHRASE)
        assert same(files / f"vm{vault.house.qube('work').qid}/private.img", vault.image("work"))

    service = (
        f'[ "$1" = qubes.Backup ] && read -r line && echo "$line" > {tmp_path}/line; cat > {tmp_path}/sent'
    )
    at(tmp_path, save, script(tmp_path, service))


def test_a_passphrase_from_a_qube_is_stripped(tmp_path: Path) -> None:
    async def save(vault: Vault) -> None:
        archive = await vault.back_up(passphrase_text=None, passphrase_vm="sys-net")
        unpacked(archive, "qubes.BackupPassphrase+p sys-net")
        assert vault.house.names().count("sys-net domain-cmd-pre-run") == 1

    at(tmp_path, save, script(tmp_path, 'echo "  $1 $2  "'))


def test_no_two_backups_have_the_same_identifier(tmp_path: Path) -> None:
    """Else a piece of one could stand in the other."""

    async def save(vault: Vault) -> None:
        names = ("a", "b", "c")
        for name in names:
            vault.profile(name, destination_path=vault.folder / name)
        await asyncio.gather(*(vault.house.do("admin.backup.Execute", argument=name) for name in names))
        heads = [(vault.folder / name).read_bytes()[:1024] for name in names]
        assert len({re.findall(rb"backup-id=.*", head)[0] for head in heads}) == 3

    at(tmp_path, save)


def test_progress_is_told_once_a_second_at_most(tmp_path: Path) -> None:
    """A destination that takes its time holds up what comes after the first image."""
    told: list[tuple[float, float]] = []

    async def save(vault: Vault) -> None:
        for name in ("sys-net", "work"):
            with vault.image(name).open("r+b") as file:
                file.writelines(os.urandom(MIB) for _ in range(3))

        def note(event: BackupProgress) -> None:
            told.append((time.monotonic(), event.progress))

        vault.house.core.bus.subscribe(BackupProgress, note)
        await vault.back_up(include="[sys-net, work]", destination_vm="sys-net", compression="false")

    at(tmp_path, save, script(tmp_path, "sleep 1.2; cat > /dev/null"))
    assert len(told) > 1
    assert all(later - before >= 0.99 for (before, _), (later, _) in pairwise(told))
    assert told[0][1] == 0
    assert 50 < told[1][1] <= 100


def test_a_qube_whose_only_file_is_removed_meanwhile(tmp_path: Path) -> None:
    """It is in the archive, as one of which there is nothing."""

    async def save(vault: Vault) -> None:
        house, asked = vault.house, tmp_path / "asked"
        await house.do("admin.vm.Create.DispVM", argument="web-dvm", payload="name=brief label=red")
        await house.do("admin.vm.notes.Set", "brief", payload="soon gone")
        vault.profile(include="[brief]", passphrase_text=None, passphrase_vm="sys-net")
        under_way = asyncio.create_task(house.answer("admin.backup.Execute", argument="p"))
        await until(asked.exists)
        (house.core.config.qubes_dir / "appvms/brief/notes.txt").unlink()
        asked.unlink()
        await under_way
        archive = vault.folder / "archive"
        assert members(archive)[3:] == [f"vm{house.qube('brief').qid}/empty.000.enc"]
        with closing(Archive(archive, PASSPHRASE, Processes())) as opened:
            assert list(opened.saved) == ["brief"]

    wait = f"touch {tmp_path}/asked; while [ -e {tmp_path}/asked ]; do sleep 0.01; done; echo {PASSPHRASE}"
    at(tmp_path, save, script(tmp_path, wait))
