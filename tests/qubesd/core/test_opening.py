"""The first system of a host: made when it is asked for, never in the place of one that is there."""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path

import pytest

from broker.daemon import main
from qubesd.core.opening import create_system, open_core
from qubesd.errors import StoreError
from qubesd.store.xml import load
from tests.qubesd.house import KERNEL, config_at

FICLONE = 0x40049409


def shares_extents(folder: Path) -> bool:
    with (folder / "a").open("wb+") as one, (folder / "b").open("wb") as other:
        one.write(b"x" * 4096)
        one.flush()
        try:
            fcntl.ioctl(other, FICLONE, one.fileno())
        except OSError:
            return False
    return True


def test_an_empty_system_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_at(tmp_path)
    command = ["--root", str(tmp_path), "--create"]
    with pytest.raises(SystemExit) as made:
        main(command)
    assert made.value.code == 0
    assert capsys.readouterr().out == f"{config.store}: an empty system\n"
    content = config.store.read_bytes()
    system = load(content)
    assert (list(system.qubes), len(system.labels)) == (["dom0"], 8)
    assert system.pools["varlibqubes"].driver == ("file-reflink" if shares_extents(tmp_path) else "file")
    assert system.properties["default_kernel"] == KERNEL
    assert config.store.stat().st_mode & 0o777 == 0o660
    with pytest.raises(SystemExit) as refused:
        main(command)
    assert refused.value.code == f"qubesd: {config.store}: is there already, and stays as it is"
    assert config.store.read_bytes() == content


def test_what_was_made_is_opened(tmp_path: Path) -> None:
    config = config_at(tmp_path)

    async def story() -> list[str]:
        async with open_core(config) as core:
            return list(core.system.qubes)

    with pytest.raises(StoreError, match=r"not found: restore it from a backup, or .* qubesd --create"):
        asyncio.run(story())
    create_system(config)
    assert asyncio.run(story()) == ["dom0"]
