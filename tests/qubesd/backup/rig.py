"""A house with profiles of backups, whose archives cost little to guess at, and so to make."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from qubesd.backup.encryption import Cost
from qubesd.core.backups import Backups
from tests.qubesd.house import House, visit

PASSPHRASE = "correct horse"
CHEAP = Cost(10, 1, 1)
"""The least that the program takes."""


SIZE = 64 << 20
"""Bytes of every image."""


class Vault:
    """A house of small images, and where its archives go."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house = house
        self.folder = folder
        core = house.core
        core.backups = Backups(core, core.storage, core.power.guests, CHEAP)
        for image in core.config.qubes_dir.rglob("*.img"):
            os.truncate(image, SIZE)

    def profile(self, name: str = "p", /, **settings: object) -> None:
        """Write a profile: ``work`` to the file ``archive``, if ``settings`` do not say otherwise; ``None``
        leaves a key out."""
        lines = {
            "include": "[work]",
            "destination_vm": "dom0",
            "destination_path": str(self.folder / "archive"),
            "passphrase_text": PASSPHRASE,
            **settings,
        }
        folder = self.house.core.config.backup_dir
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None)
        (folder / f"{name}.conf").write_text(text, encoding="utf-8")

    async def back_up(self, **settings: object) -> Path:
        """The archive of a profile."""
        self.profile(**settings)
        await self.house.do("admin.backup.Execute", argument="p")
        return self.folder / "archive"

    def image(self, qube: str, volume: str = "private", kind: str = "appvms") -> Path:
        return self.house.core.config.qubes_dir / kind / qube / f"{volume}.img"

    def check_nothing_is_left(self) -> None:
        """No file, no note, no program, no job."""
        assert os.listdir(self.folder) == []
        notes = self.house.core.config.qubes_dir / ".backups"
        assert not notes.exists() or os.listdir(notes) == []
        assert children() == []
        assert open_images() == []


def at(root: Path, guest: Callable[[Vault], Awaitable[None]], guest_service: str = "") -> None:
    """Let ``guest`` do its work in a furnished house below ``root``."""
    folder = root / "archives"
    folder.mkdir(parents=True)

    async def enter(house: House) -> None:
        await guest(Vault(house, folder))

    visit(root, enter, guest_service=guest_service)


def script(root: Path, text: str) -> str:
    """A ``guest_service`` that is this shell script; ``$1`` is the service, ``$2`` the qube."""
    place = root / "service"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    place.chmod(0o755)
    return f"{place} {{service}} {{qube}}"


async def until(condition: Callable[[], bool]) -> None:
    """Return when it holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def children() -> list[str]:
    """The processes that this one has started and that are there still."""
    found = []
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found += file.read_text().split()
    return found


def open_images() -> list[str]:
    """The images that this process has open."""
    links = (os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return [place for place in links if place.endswith(".img")]
