"""Changes of what running qubes announce, told by the kernel: real folders, real inotify."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from broker.announcements import Announcements, announcements_in
from tests.broker.files_rig import wait_until

BLOCK, USB = "sys-usb/qubes-block-devices", "sys-usb/qubes-usb-devices"

Story = Callable[[Announcements, list[str]], Coroutine[None, None, None]]


def follow(folder: Path, story: Story) -> None:
    """Tell the story with what is told of ``sys-usb`` meanwhile."""

    async def run() -> None:
        async with announcements_in(folder) as announcements:
            told: list[str] = []
            announcements.watch("sys-usb", lambda: told.append("sys-usb"))
            await story(announcements, told)
        assert announcements.watches == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    ("before", "change"),
    [
        pytest.param((), lambda root: (root / "sys-usb").mkdir(), id="the-database-appears"),
        pytest.param(("sys-usb",), lambda root: (root / BLOCK).mkdir(), id="a-list-appears"),
        pytest.param((BLOCK,), lambda root: (root / BLOCK / "sda").mkdir(), id="a-disk-comes"),
        pytest.param((USB,), lambda root: (root / USB / "1-1").mkdir(), id="a-usb-device-comes"),
        pytest.param((f"{BLOCK}/sda",), lambda root: (root / BLOCK / "sda").rmdir(), id="a-disk-goes"),
        pytest.param(
            (f"{BLOCK}/sda", "aside"),
            lambda root: (root / BLOCK / "sda").rename(root / "aside/sda"),
            id="a-disk-is-moved-out",
        ),
        pytest.param((BLOCK,), lambda root: os.utime(root / BLOCK), id="the-list-is-touched"),
        pytest.param((BLOCK,), lambda root: (root / BLOCK).rmdir(), id="the-list-goes"),
        pytest.param((BLOCK,), lambda root: shutil.rmtree(root / "sys-usb"), id="the-database-goes"),
        pytest.param(
            (BLOCK,), lambda root: os.mkdir(os.fsencode(root / BLOCK) + b"/\xff\n"), id="no-name-at-all"
        ),
    ],
)
def test_a_change_is_told_once(
    tmp_path: Path, before: tuple[str, ...], change: Callable[[Path], object]
) -> None:
    for place in before:
        (tmp_path / place).mkdir(parents=True)

    async def story(announcements: Announcements, told: list[str]) -> None:
        change(tmp_path)
        await wait_until(lambda: told != [])
        assert announcements.watches == 0
        shutil.rmtree(tmp_path / "sys-usb", ignore_errors=True)
        (tmp_path / BLOCK).mkdir(parents=True)
        announcements.look()
        assert told == ["sys-usb"]

    follow(tmp_path, story)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: (root / "other").mkdir(), id="another-qube"),
        pytest.param(lambda root: (root / BLOCK / "sda/desc").write_text("x"), id="within-a-device"),
        pytest.param(lambda root: os.listdir(root / BLOCK), id="somebody-looks"),
    ],
)
def test_what_is_no_change_of_the_list_is_not_told(tmp_path: Path, change: Callable[[Path], object]) -> None:
    (tmp_path / BLOCK / "sda").mkdir(parents=True)

    async def story(announcements: Announcements, told: list[str]) -> None:
        change(tmp_path)
        announcements.look()
        assert told == []
        os.utime(tmp_path / BLOCK)
        announcements.look()
        assert told == ["sys-usb"]

    follow(tmp_path, story)


def test_nothing_is_told_after_the_end_of_a_watch(tmp_path: Path) -> None:
    (tmp_path / BLOCK).mkdir(parents=True)

    async def story(announcements: Announcements, told: list[str]) -> None:
        end = announcements.watch("sys-usb", lambda: told.append("again"))
        end()
        end()
        (tmp_path / BLOCK / "sda").mkdir()
        announcements.look()
        assert told == []
        assert announcements.watches == 0

    async def alone() -> None:
        async with announcements_in(tmp_path) as announcements:
            await story(announcements, [])

    asyncio.run(alone())


def test_a_long_list_costs_no_more_watches_than_a_short_one(tmp_path: Path) -> None:
    for port in range(500):
        (tmp_path / BLOCK / f"d{port}").mkdir(parents=True)
    (tmp_path / USB).mkdir()

    async def story(announcements: Announcements, told: list[str]) -> None:
        assert announcements.watches == 3

    follow(tmp_path, story)


def test_what_cannot_be_watched_counts_as_changed_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A link is not followed, so what it leads to is not watched."""
    monkeypatch.setattr("broker.announcements._BLIND", 0.01)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sys-usb").symlink_to("elsewhere")

    async def story(announcements: Announcements, told: list[str]) -> None:
        await wait_until(lambda: told == ["sys-usb"])
        announcements.watch("sys-usb", lambda: told.append("again"))
        await wait_until(lambda: told == ["sys-usb", "again"])
        assert caplog.text.count("cannot be watched") == 1

    follow(tmp_path, story)
