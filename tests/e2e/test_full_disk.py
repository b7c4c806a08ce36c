"""A disk that is really full, under everything that is kept: what changes is refused with what to do, what
reads goes on, and with room again all goes on and nothing is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.client import call
from broker.wire import Failure, parse_reply
from tests.broker.backup.forge import PASSPHRASE, image, inner, of_file, of_header, of_store, written
from tests.broker.rig import PATIENCE, ROOT, Daemon, answer, errors
from tests.e2e.backup_rig import phrase_in
from tests.e2e.small_disk import FULL, beside, fill, fill_with_files, on_a_small_disk, tree
from tests.qubesd.backup.by_hand import needs_scrypt

MIB = 1 << 20


def audited(folder: Path) -> list[int]:
    """The numbers of the calls that have a record."""
    lines = (folder / "log/qubes/qubesd-audit.jsonl").read_text("ascii").split("\n")
    return [json.loads(line)["call"] for line in lines[:-1]]


CHANGES = [
    ("admin.vm.tag.Set", "work", "new", b""),
    ("admin.vm.Create.StandaloneVM", "dom0", "", b"name=more label=red"),
    ("policy.Replace", "dom0", "30-new", b"any\nmy.Service * @anyvm @anyvm deny\n"),
]
"""Calls that write the store, the files of a qube, and the history of the policy."""


def test_a_full_disk(tmp_path: Path) -> None:
    with on_a_small_disk(tmp_path) as (daemon, var):
        daemon.create("work")
        rows = call(daemon.socket, "admin.vm.List")
        store = (var / "lib/qubes/qubes.xml").read_bytes()
        fill(var / "filler")
        for service, target, argument, payload in CHANGES:
            refused = answer(daemon.socket, service, target, argument, payload)
            assert isinstance(refused, Failure), service
            assert FULL in refused.message
        for _ in range(50):
            assert call(daemon.socket, "admin.vm.List") == rows
        assert (var / "lib/qubes/qubes.xml").read_bytes() == store
        assert not (tmp_path / "etc/qubes/policy.d/30-new.policy").exists()
        doctor: list[str | Path] = [
            sys.executable,
            "-m",
            "broker.daemon",
            "--root",
            tmp_path,
            "--doctor",
            "--json",
        ]
        done = subprocess.run(
            beside(daemon, *doctor), cwd=ROOT, capture_output=True, check=False, timeout=PATIENCE
        )
        (room,) = [
            one for one in json.loads(done.stdout) if one["about"] == "room" and one["level"] == "error"
        ]
        assert (done.returncode, room["do"]) == (1, "free some space: the next change may fail")
        held_back = len(audited(var))
        assert "the audit stands still: No space left on device; free some space" in errors(tmp_path)
        (var / "filler").unlink()
        for service, target, argument, payload in CHANGES:
            assert answer(daemon.socket, service, target, argument, payload) == b"", service
        assert "the audit goes on" in errors(tmp_path)
        assert call(daemon.socket, "admin.vm.List").count(b"\n") == rows.count(b"\n") + 1
        assert (tmp_path / "etc/qubes/policy.d/30-new.policy").exists()
        numbers = audited(var)
    assert held_back < len(numbers)
    assert numbers == list(range(1, len(numbers) + 1))


Change = Callable[[Daemon], bytes | Failure]


def of_volume(verb: str, payload: bytes = b"") -> Change:
    """A call on the volume of ``work``."""
    return lambda daemon: answer(daemon.socket, f"admin.vm.volume.{verb}", "work", "private", payload)


def cloned(daemon: Daemon) -> bytes | Failure:
    token = call(daemon.socket, "admin.vm.volume.CloneFrom", "other", "private")
    return answer(daemon.socket, "admin.vm.volume.CloneTo", "work", "private", token)


def imported(data: bytes, *options: str) -> Change:
    """What the service that takes the data answers, which writes to the disk itself."""

    def change(daemon: Daemon) -> bytes | Failure:
        socket = daemon.root / "run/qubesd.internal.sock"
        program = [sys.executable, "-m", "broker.services.volume_import", "private", *options]
        done = subprocess.run(
            beside(daemon, *program, f"--qubesd-internal-socket-path={socket}"),
            cwd=ROOT,
            input=data,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
            env={
                **os.environ,
                "QREXEC_REMOTE_DOMAIN": "dom0",
                "QREXEC_REQUESTED_TARGET_TYPE": "name",
                "QREXEC_REQUESTED_TARGET": "work",
            },
        )
        assert done.stderr == b""
        return parse_reply(done.stdout)

    return change


NOISE = os.urandom(MIB)
CHANGES_OF_VOLUMES = {
    "resize": of_volume("Resize", b"%d" % (3000 * MIB)),
    "import": imported(b"%d\n" % MIB + NOISE, "--with-size"),
    "import-of-zeros": imported(b"%d\n" % MIB + bytes(MIB), "--with-size"),
    "clone": cloned,
    "clear": of_volume("Clear"),
}


def furnished(daemon: Daemon, var: Path) -> Path:
    """Two qubes with something in their volumes; the folder of what is kept."""
    daemon.create("work", "other")
    call(daemon.socket, "admin.vm.volume.Resize", "other", "private", b"%d" % (2500 * MIB))
    for qube, size in (("work", 1 << 16), ("other", MIB)):
        with (var / f"lib/qubes/appvms/{qube}/private.img").open("r+b") as image:
            image.write(os.urandom(size))
    return var / "lib"


@pytest.mark.parametrize(
    ("full", "left", "possible"),
    [
        pytest.param(fill, 0, {"clear"}, id="no-block"),
        pytest.param(fill, 1 << 18, {"clear", "resize", "import-of-zeros"}, id="few-blocks"),
        pytest.param(fill_with_files, 0, set(), id="no-file"),
    ],
)
def test_volumes_on_a_full_disk(
    tmp_path: Path, full: Callable[[Path], None], left: int, possible: set[str]
) -> None:
    """What finds no room is refused and leaves each file as it was; what takes none is done."""
    with on_a_small_disk(tmp_path) as (daemon, var):
        kept = furnished(daemon, var)
        full(var / "filler")
        if left:
            os.truncate(var / "filler", (var / "filler").stat().st_size - left)
        before = tree(kept)
        info = call(daemon.socket, "admin.vm.volume.Info", "work", "private")
        for name, change in CHANGES_OF_VOLUMES.items():
            if name in possible:
                continue
            refused = change(daemon)
            assert isinstance(refused, Failure), name
            assert FULL in refused.message, name
            assert str(tmp_path / "var/lib") in refused.message, name
            assert tree(kept) == before, name
            assert call(daemon.socket, "admin.vm.volume.Info", "work", "private") == info, name
        for name in sorted(possible):
            assert CHANGES_OF_VOLUMES[name](daemon) == b"", name
        if full is fill:
            (var / "filler").unlink()
        else:
            shutil.rmtree(var / "filler")
        for name, change in CHANGES_OF_VOLUMES.items():
            assert change(daemon) == b"", name


@needs_scrypt
@pytest.mark.parametrize(
    "full", [pytest.param(fill, id="no-block"), pytest.param(fill_with_files, id="no-file")]
)
def test_a_qube_that_runs_while_the_disk_becomes_full(tmp_path: Path, full: Callable[[Path], None]) -> None:
    """It stops, what its guest wrote is there, and it starts again at the latest when there is room."""
    with on_a_small_disk(tmp_path) as (daemon, var):
        daemon.create("work", "other")
        call(daemon.socket, "admin.vm.Start", "work")
        images = var / "lib/qubes/appvms/work"
        with (images / "private-dirty.img").open("r+b") as image:
            image.write(NOISE[: 1 << 16])
        filler = var / "filler"
        full(filler)
        assert call(daemon.socket, "admin.vm.Kill", "work") == b""
        for qube in ("work", "other"):
            started = answer(daemon.socket, "admin.vm.Start", qube)
            if isinstance(started, Failure):
                assert FULL in started.message
                assert b"power_state=Halted" in call(daemon.socket, "admin.vm.CurrentState", qube)
            else:
                call(daemon.socket, "admin.vm.Kill", qube)
        emptied(filler)
        for qube in ("work", "other"):
            call(daemon.socket, "admin.vm.Start", qube)
            call(daemon.socket, "admin.vm.Kill", qube)
        with (images / "private.img").open("rb") as image:
            assert image.read(1 << 16) == NOISE[: 1 << 16]
        assert not list(images.glob("*-dirty.img"))


def found(folder: Path, *words: str) -> bool:
    return any(all(word in place.parts for word in words) for place in folder.rglob("*"))


@pytest.mark.parametrize(
    "full", [pytest.param(fill, id="no-block"), pytest.param(fill_with_files, id="no-file")]
)
def test_guests_databases_on_a_full_disk(tmp_path: Path, full: Callable[[Path], None]) -> None:
    """A qube that would begin without its own does not start; one that runs gets what it lacks later."""
    with on_a_small_disk(tmp_path, "run/qubesdb") as (daemon, databases):
        daemon.create("work", "other")
        call(daemon.socket, "admin.vm.Start", "work")
        full(databases / "filler")
        refused = answer(daemon.socket, "admin.vm.Start", "other")
        assert isinstance(refused, Failure)
        assert FULL in refused.message
        assert b"power_state=Halted" in call(daemon.socket, "admin.vm.CurrentState", "other")
        assert call(daemon.socket, "admin.vm.feature.Set", "work", "service.first", b"1") == b""
        assert f"the database of qube 'work' cannot be written: {FULL}" in errors(tmp_path)
        emptied(databases / "filler")
        assert not found(databases, "work", "first")
        call(daemon.socket, "admin.vm.Start", "other")
        assert found(databases, "work", "first")
        call(daemon.socket, "admin.vm.Kill", "work")


def test_the_services_of_the_host_on_a_full_disk(tmp_path: Path) -> None:
    with on_a_small_disk(tmp_path, "run/qubes-service") as (daemon, services):
        fill_with_files(services / "filler")
        call(daemon.socket, "admin.vm.feature.Set", "dom0", "service.first", b"1")
        assert f"service 'first' of dom0 is not shown: {FULL}" in errors(tmp_path)
        emptied(services / "filler")
        call(daemon.socket, "admin.vm.feature.Set", "dom0", "service.second", b"1")
        assert sorted(place.name for place in services.iterdir()) == ["first", "second"]


def emptied(filler: Path) -> None:
    """There is room again."""
    shutil.rmtree(filler) if filler.is_dir() else filler.unlink()


@pytest.mark.parametrize("left", [pytest.param(0, id="no-block"), pytest.param(1 << 18, id="few-blocks")])
def test_a_backup_that_finds_no_room_for_a_piece(tmp_path: Path, left: int) -> None:
    """Where the archive goes there is enough."""
    profile = tmp_path / "etc/qubes/backup/p.conf"
    archives = tmp_path / "archives"
    archives.mkdir()
    with on_a_small_disk(tmp_path) as (daemon, var):
        profile.parent.mkdir()
        profile.write_text(
            "include: [other]\ndestination_vm: dom0\ncompression: false\n"
            f"destination_path: {archives}/a\npassphrase_text: {PASSPHRASE}\n"
        )
        kept = furnished(daemon, var)
        fill(var / "filler")
        if left:
            os.truncate(var / "filler", (var / "filler").stat().st_size - left)
        before = tree(kept)
        refused = answer(daemon.socket, "admin.backup.Execute", "dom0", "p")
        assert isinstance(refused, Failure)
        assert f"{tmp_path}/var/lib/qubes/.backups" in refused.message
        assert FULL in refused.message
        assert tree(kept) == before
        assert list(archives.iterdir()) == []
        (var / "filler").unlink()
        assert answer(daemon.socket, "admin.backup.Execute", "dom0", "p") == b""
        assert [file.name for file in archives.iterdir()] == ["a"]


@needs_scrypt
def test_a_reader_that_finds_no_room_for_a_piece_takes_nothing_for_damaged(tmp_path: Path) -> None:
    members = [
        *of_header(),
        of_store(),
        of_file("vm2/private.img", inner("vm2/private.img", NOISE)),
        image(3),
    ]
    archive = written(tmp_path / "archive", members)
    words = [sys.executable, "-m", "broker.backup.program", "verify", "--passphrase-file"]
    with on_a_small_disk(tmp_path) as (daemon, var):
        fill(var / "filler")
        os.truncate(var / "filler", (var / "filler").stat().st_size - MIB // 2)
        done = subprocess.run(
            beside(daemon, *words, phrase_in(tmp_path), archive),
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path / "var")},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    said = f"qube-backup: {tmp_path}/var: a piece of the archive cannot be put aside: {FULL}\n"
    assert (done.returncode, done.stderr) == (1, said)
