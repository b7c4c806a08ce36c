"""Throw-away keys: what cryptsetup is told, and that no qube starts without the encryption it should have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from qubesd.errors import StorageError
from qubesd.storage.commands import run
from qubesd.storage.encryption import close, device, opened
from tests.qubesd.house import House, visit


class Recorded:
    """cryptsetup as far as its arguments go: it maps by making a file."""

    def __init__(self, mapper: Path) -> None:
        self.mapper = mapper
        self.calls: list[tuple[Sequence[str], bytes]] = []

    def __call__(self, arguments: Sequence[str], data: bytes) -> bytes:
        self.calls.append((arguments, data))
        if arguments[1] == "open":
            (self.mapper / arguments[-1]).write_bytes(b"noise" * 20_000)
        return b""


def test_a_fresh_key_each_time_and_never_among_the_arguments(tmp_path: Path) -> None:
    tool = Recorded(tmp_path)
    name = device("my_qube-1", "volatile")
    assert name == "vm-volatile-my_uqube_d1-crypt@volatile"
    for _ in range(2):
        assert opened(tool, "/images/x.img", name, tmp_path) == str(tmp_path / name)
        close(tool, name)
    (first, key), (last, _), (_, second), _ = tool.calls
    assert first == [
        *("cryptsetup", "open", "--type", "plain", "--cipher", "aes-xts-plain64", "--key-size", "512"),
        *("--key-file", "-", "--", "/images/x.img", name),
    ]
    assert last == ["cryptsetup", "close", "--", name]
    assert len(key) == len(second) == 64
    assert key != second
    content = (tmp_path / name).read_bytes()
    assert content[: 64 << 10] == bytes(64 << 10)
    assert content[64 << 10 :].strip(b"noise") == b""


def test_what_cannot_be_cleared_is_closed_again(tmp_path: Path) -> None:
    calls: list[Sequence[str]] = []

    def tool(arguments: Sequence[str], data: bytes) -> bytes:
        calls.append(arguments)
        return b""

    with pytest.raises(StorageError, match="cannot be cleared"):
        opened(tool, "/x", "name", tmp_path)
    assert [arguments[1] for arguments in calls] == ["open", "close"]


def test_a_tool_that_is_missing_or_fails_is_named() -> None:
    with pytest.raises(StorageError, match="no-such-tool: not installed"):
        run(["no-such-tool"])
    with pytest.raises(StorageError, match=r"sh: failed: why\?\[1m"):
        run(["sh", "-c", "printf 'first\\nwhy\\033[1m\\n' >&2; exit 3"])
    assert run(["cat"], b"data") == b"data"


def test_no_qube_starts_without_the_encryption_that_it_should_have(tmp_path: Path) -> None:
    """Here nothing can be mapped, so the start fails instead of writing in the clear."""

    async def guest(house: House) -> None:
        await house.do("admin.vm.volume.Set.ephemeral", "work", "volatile", "True")
        assert await house.call("admin.vm.Start", "work") == "StoragePoolException"
        assert (await house.call("admin.vm.CurrentState", "work")).endswith("power_state=Halted")
        assert not list((tmp_path / "var/lib/qubes/appvms/work").glob("*-dirty.img"))
        await house.do("admin.vm.volume.Set.ephemeral", "work", "volatile", "False")
        await house.do("admin.vm.Start", "work")

    visit(tmp_path, guest)
