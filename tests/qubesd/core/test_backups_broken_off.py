"""Backups in a real core that come to nothing, or are made to: nothing of them is left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from qubesd.core.opening import open_core
from qubesd.errors import (
    BackupAlreadyRunning,
    BackupCancelled,
    NoSuchBackupProfile,
    NotSupported,
    ProtocolError,
    QubesError,
    StorageError,
)
from tests.qubesd.backup.by_hand import needs_scrypt
from tests.qubesd.backup.rig import PASSPHRASE, Vault, at, children, script, until
from tests.qubesd.house import config_at

pytestmark = needs_scrypt

MIB = 1 << 20


@pytest.mark.parametrize(
    ("service", "settings", "error", "words"),
    [
        pytest.param("cat > /dev/null; echo no room >&2; exit 1", {}, QubesError, "no room", id="fails"),
        pytest.param("echo no such disk >&2; exit 1", {}, QubesError, "no such disk", id="reads-nothing"),
        pytest.param("exit 0", {}, QubesError, "only a part", id="takes-a-part"),
        pytest.param(
            "cat >/dev/null", {"destination_vm": "gone"}, QubesError, "no qube 'gone'", id="no-qube"
        ),
        pytest.param("", {"passphrase_vm": "work"}, BackupCancelled, "empty passphrase", id="empty"),
        pytest.param("echo; echo", {"passphrase_vm": "work"}, BackupCancelled, "empty", id="blank"),
        pytest.param("echo a; echo b", {"passphrase_vm": "work"}, ProtocolError, "one line", id="two-lines"),
        pytest.param(r"printf '\377'", {"passphrase_vm": "work"}, ProtocolError, "not UTF-8", id="not-utf-8"),
        pytest.param("exit 9", {"passphrase_vm": "work"}, QubesError, "status 9", id="passphrase-fails"),
        pytest.param("yes", {"passphrase_vm": "work"}, QubesError, "failed", id="passphrase-endless"),
    ],
)
def test_what_a_service_in_a_qube_does_wrong(
    tmp_path: Path, service: str, settings: dict[str, str], error: type[QubesError], words: str
) -> None:
    asked = {"passphrase_text": None} if "passphrase_vm" in settings else {"destination_vm": "sys-net"}

    async def save(vault: Vault) -> None:
        with vault.image("work").open("r+b") as file:
            file.write(os.urandom(MIB))
        with pytest.raises(error, match=words) as raised:
            await vault.back_up(**{**asked, **settings})
        assert raised.value.wire_name == error.wire_name
        vault.check_nothing_is_left()
        assert "backup_timestamp" not in vault.house.qube("work").properties

    at(tmp_path, save, script(tmp_path, service))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        pytest.param({"include": "[work, gone]"}, QubesError, "no qube 'gone'", id="unknown"),
        pytest.param({"include": "[]"}, QubesError, "selects nothing", id="nothing"),
        pytest.param({"passphrase_text": None}, QubesError, "'passphrase_vm' is needed", id="no-passphrase"),
        pytest.param({"destination_path": "archive"}, QubesError, "absolute path", id="relative"),
        pytest.param({"destination_path": "/nowhere/archive"}, QubesError, "no such folder", id="no-folder"),
        pytest.param(
            {"destination_path": "/dev/null"}, QubesError, "is no file, such as a disk", id="device"
        ),
        pytest.param({"destination_vm": "sys-net"}, NotSupported, "guest_service", id="no-service"),
        pytest.param({"compression": "pigz"}, QubesError, "not installed", id="no-program"),
    ],
)
def test_what_cannot_be_backed_up(
    tmp_path: Path, settings: dict[str, str | None], error: type[QubesError], words: str
) -> None:
    async def save(vault: Vault) -> None:
        with pytest.raises(error, match=words):
            await vault.back_up(**settings)
        vault.check_nothing_is_left()

    at(tmp_path, save)


def test_profiles_that_are_not_there_or_not_running(tmp_path: Path) -> None:
    async def ask(vault: Vault) -> None:
        house = vault.house
        for service in ("Info", "Execute"):
            with pytest.raises(NoSuchBackupProfile, match=r"write .*/nosuch\.conf"):
                await house.do(f"admin.backup.{service}", argument="nosuch")
        with pytest.raises(QubesError, match="no backup by the profile 'p' is running"):
            await house.do("admin.backup.Cancel", argument="p")
        for service in ("Info", "Execute", "Cancel"):
            with pytest.raises(ProtocolError):
                await house.do(f"admin.backup.{service}", argument="a/b")

    at(tmp_path, ask)


def test_a_folder_that_is_in_the_way_of_what_is_put_aside(tmp_path: Path) -> None:
    async def save(vault: Vault) -> None:
        (vault.house.core.config.qubes_dir / ".backups").touch()
        with pytest.raises(QubesError, match=r"\.backups: cannot be made"):
            await vault.back_up(destination_vm="sys-net")

    at(tmp_path, save, script(tmp_path, "cat > /dev/null"))


def test_where_it_was_to_go_is_removed_meanwhile(tmp_path: Path) -> None:
    """Somebody takes time to type the passphrase."""

    async def save(vault: Vault) -> None:
        house, asked = vault.house, tmp_path / "asked"
        await house.do("admin.vm.Create.AppVM", argument="debian-13", payload="name=usb label=red")
        vault.profile(passphrase_text=None, passphrase_vm="sys-net", destination_vm="usb")
        under_way = asyncio.create_task(house.answer("admin.backup.Execute", argument="p"))
        await until(asked.exists)
        await house.do("admin.vm.Remove", "usb")
        asked.unlink()
        with pytest.raises(QubesError, match="qube 'usb' was removed meanwhile"):
            await under_way
        vault.check_nothing_is_left()

    wait = f"touch {tmp_path}/asked; while [ -e {tmp_path}/asked ]; do sleep 0.01; done; echo {PASSPHRASE}"
    at(tmp_path, save, script(tmp_path, wait))


def test_a_missing_image_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    async def save(vault: Vault) -> None:
        vault.image("work").unlink()
        with pytest.raises(StorageError, match="cannot be read"):
            await vault.back_up(include="[sys-net, work]")
        vault.check_nothing_is_left()

    at(tmp_path, save)


def seen_by_others() -> bytes:
    """The command lines and environments of the programs that run for this process."""
    found = b""
    for pid in children():
        for name in ("cmdline", "environ"):
            with suppress(FileNotFoundError, ProcessLookupError):
                found += Path(f"/proc/{pid}/{name}").read_bytes()
    return found


STUCK = 'case "$1" in {0}) touch {1}/there; exec sleep 600 ;; esac; cat > /dev/null'


@pytest.mark.parametrize(
    ("settings", "stuck"),
    [
        pytest.param(
            {"passphrase_text": None, "passphrase_vm": "work"}, "qubes.BackupPassphrase+p", id="asking"
        ),
        pytest.param({"destination_vm": "work"}, "qubes.Backup", id="sending"),
        pytest.param({}, "", id="writing"),
        pytest.param({"compression": "xz"}, "", id="compressing"),
    ],
)
def test_cancelled_at_any_time_nothing_is_left(
    tmp_path: Path, settings: dict[str, str | None], stuck: str
) -> None:
    """Meanwhile, there is no other backup of this profile."""

    async def save(vault: Vault) -> None:
        house = vault.house
        with vault.image("work").open("r+b") as file:
            for _ in range(40):
                file.write(os.urandom(MIB))
        vault.profile(**{"compression": "false", **settings})
        under_way = asyncio.create_task(house.answer("admin.backup.Execute", argument="p"))
        unfinished = vault.folder / ".archive.unfinished"
        begun = (tmp_path / "there").exists if stuck else lambda: unfinished.exists()
        await until(begun)
        with pytest.raises(BackupAlreadyRunning):
            await house.do("admin.backup.Execute", argument="p")
        assert PASSPHRASE.encode() not in seen_by_others()
        await house.do("admin.backup.Cancel", argument="p")
        with pytest.raises(BackupCancelled, match="nothing of it is left"):
            await under_way
        vault.check_nothing_is_left()
        assert "backup_timestamp" not in house.qube("work").properties

    at(tmp_path, save, script(tmp_path, STUCK.format(stuck or "none", tmp_path)))


@pytest.mark.parametrize(
    ("by_call", "error"),
    [
        pytest.param(True, BackupCancelled, id="by-a-call"),
        pytest.param(False, asyncio.CancelledError, id="by-the-daemon"),
    ],
)
def test_cancelled_while_a_volume_is_copied_nothing_is_left(
    tmp_path: Path, by_call: bool, error: type[BaseException]
) -> None:
    """It waits for who has the volume, and need not."""

    async def save(vault: Vault) -> None:
        house = vault.house
        vault.profile()
        (volume,) = (one for one in house.core.storage.volumes(house.qube("work")) if one.name == "private")
        async with house.core.storage.holding(volume), asyncio.timeout(20):
            under_way = asyncio.create_task(house.answer("admin.backup.Execute", argument="p"))
            unfinished = vault.folder / ".archive.unfinished"
            await until(unfinished.exists)
            await until(lambda: b"qubes.xml" in unfinished.read_bytes() and children() == [])
            if by_call:
                await house.do("admin.backup.Cancel", argument="p")
            else:
                under_way.cancel()
            with pytest.raises(error):
                await under_way
        vault.check_nothing_is_left()
        await vault.back_up()

    at(tmp_path, save)


def test_a_task_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """As when the daemon is told to stop."""

    async def save(vault: Vault) -> None:
        vault.profile(destination_vm="work")
        under_way = asyncio.create_task(vault.house.answer("admin.backup.Execute", argument="p"))
        await until((tmp_path / "there").exists)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        vault.check_nothing_is_left()

    at(tmp_path, save, script(tmp_path, STUCK.format("qubes.Backup", tmp_path)))


def killed_while_it_wrote(archive: Path, notes: Path) -> None:
    """What a daemon leaves that was killed in the middle of a backup."""
    program = (
        "import os, sys; from pathlib import Path\n"
        "from qubesd.backup.destination import to_file; from qubesd.backup.notes import Notes\n"
        "from qubesd.backup.processes import Processes\n"
        "with to_file(sys.argv[1], Notes(Path(sys.argv[2])), Processes()) as target:\n"
        "    os.write(target, b'half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, archive, notes], check=False, cwd=Path.cwd())
    assert archive.with_name(f".{archive.name}.unfinished").read_bytes() == b"half"


def test_what_a_killed_daemon_left_goes_with_the_next_start(tmp_path: Path) -> None:
    async def begin(vault: Vault) -> None:
        vault.profile()

    at(tmp_path, begin)
    folder, other = tmp_path / "archives", tmp_path / "archives/.other.unfinished"
    notes = tmp_path / "var/lib/qubes/.backups"
    killed_while_it_wrote(folder / "archive", notes)
    other.touch()

    async def open_and_close() -> None:
        async with open_core(config_at(tmp_path)):
            pass

    asyncio.run(open_and_close())
    assert os.listdir(folder) == [other.name]
    assert os.listdir(notes) == []


def test_what_a_killed_daemon_left_on_a_disk_that_was_away_goes_with_the_next_backup(tmp_path: Path) -> None:
    """The next start was before the disk was there."""

    async def save(vault: Vault) -> None:
        notes = vault.house.core.config.qubes_dir / ".backups"
        killed_while_it_wrote(vault.folder / "archive", notes)
        vault.folder.rename(tmp_path / "away")
        await vault.house.core.backups.open()
        (tmp_path / "away").rename(vault.folder)
        await vault.back_up()
        assert os.listdir(vault.folder) == ["archive"]
        assert os.listdir(notes) == []

    at(tmp_path, save)
