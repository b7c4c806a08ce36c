"""Files that extensions add to a backup: saved whole, or there is no backup."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from qubesd.api.method import Text
from qubesd.core.backup_files import MOST
from qubesd.errors import QubesError
from qubesd.extension import Extension
from qubesd.model.state import Qube
from qubesd.model.view import View
from tests.qubesd.backup.by_hand import members, needs_scrypt, unpacked
from tests.qubesd.backup.rig import PASSPHRASE, Vault, at

pytestmark = needs_scrypt


def with_a_saver(vault: Vault, file: Path) -> None:
    """An extension that saves the file of each qube, twice."""

    def saved(view: View, qube: Qube) -> Mapping[str, Path]:
        return {"a.conf": file, "b": file}

    vault.house.core.extensions.use({"saver": Extension(saved=saved)})


def test_an_added_file_is_read_by_hand(tmp_path: Path) -> None:
    """The largest, and of a qube that has nothing else."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(MOST))

    async def save(vault: Vault) -> None:
        house = vault.house
        await house.do("admin.vm.Create.RemoteVM", payload="name=far label=red")
        with_a_saver(vault, file)
        archive = await vault.back_up(include="[work, far]")
        work, far = (f"vm{house.qube(name).qid}" for name in ("work", "far"))
        expected = [f"{far}/a.conf", f"{far}/b", f"{work}/a.conf", f"{work}/b", f"{work}/private.img"]
        assert members(archive)[3:] == [f"{name}.000.enc" for name in expected]
        files = unpacked(archive, PASSPHRASE)
        for name in expected[:4]:
            assert (files / name).read_bytes() == file.read_bytes()
        told = await house.answer("admin.backup.Info", argument="p")
        assert isinstance(told, Text)
        (line,) = [line for line in told.content.splitlines() if line.startswith("far")]
        assert line.split()[-2:] == ["8.0", "MiB"]

    at(tmp_path, save)


def larger(file: Path) -> None:
    file.write_bytes(bytes(MOST + 1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda file: None, "No such file", id="not-there"),
        pytest.param(Path.mkdir, "plain file", id="folder"),
        pytest.param(os.mkfifo, "plain file", id="pipe"),
        pytest.param(larger, f"more than {MOST} bytes", id="large"),
    ],
)
def test_a_file_that_cannot_be_saved_leaves_no_backup(
    make: Callable[[Path], Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    make(file)

    async def save(vault: Vault) -> None:
        with_a_saver(vault, file)
        with pytest.raises(QubesError, match=said) as refused:
            await vault.back_up()
        assert str(file) in str(refused.value)
        vault.check_nothing_is_left()
        assert "backup_timestamp" not in vault.house.qube("work").properties

    at(tmp_path, save)


def test_an_extension_that_fails_leaves_no_backup(tmp_path: Path) -> None:
    """Of the qubes that it fails for, and the table says so."""

    def saved(view: View, qube: Qube) -> Mapping[str, Path]:
        if qube.name == "work":
            raise ZeroDivisionError("of its own")
        return {}

    async def save(vault: Vault) -> None:
        vault.house.core.extensions.use({"saver": Extension(saved=saved)})
        with pytest.raises(QubesError, match="extension 'saver' fails to say what it saves of qube 'work'"):
            await vault.back_up(include="[work, sys-net]")
        vault.check_nothing_is_left()
        told = await vault.house.answer("admin.backup.Info", argument="p")
        assert isinstance(told, Text)
        marked = [line.split()[0] for line in told.content.splitlines() if "cannot be saved" in line]
        assert marked == ["work"]
        await vault.back_up(include="[sys-net]")

    at(tmp_path, save)
