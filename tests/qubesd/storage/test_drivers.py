"""Which options a driver takes, and what becomes of them in the stored configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from qubesd.errors import BadValue, ProtocolError, QubesError, StorageError
from qubesd.model.state import PoolConfig
from qubesd.storage import drivers
from qubesd.storage.commands import run
from tests.qubesd.storage.tools import Lvm

DIR = {"dir_path": "/d"}
LVM = {"volume_group": "dom0", "thin_pool": "thin"}


@pytest.mark.parametrize(
    ("driver", "given", "stored"),
    [
        ("file", DIR, {"revisions_to_keep": "1", **DIR, "ephemeral_volatile": "False"}),
        (
            "file-reflink",
            {**DIR, "setup_check": "no", "ephemeral_volatile": "yes", "revisions_to_keep": "-1"},
            {"revisions_to_keep": "-1", **DIR, "ephemeral_volatile": "True"},
        ),
        ("linux-kernel", DIR, DIR),
        ("lvm_thin", LVM, {"revisions_to_keep": "1", **LVM, "ephemeral_volatile": "False"}),
        (
            "zfs",
            {"container": "tank/qubes"},
            {
                "revisions_to_keep": "1",
                "container": "tank/qubes",
                "ephemeral_volatile": "False",
                "snap_on_start_forensics": "False",
            },
        ),
    ],
)
def test_a_pool_is_stored_with_every_option_in_one_form(
    driver: str, given: dict[str, str], stored: dict[str, str]
) -> None:
    config, pool = drivers.configure("p", driver, given)
    assert config == PoolConfig("p", driver, stored)
    assert pool.config == config
    assert type(drivers.make(config)) is type(pool)


@pytest.mark.parametrize(
    ("driver", "given", "error"),
    [
        ("file", {}, QubesError),
        ("file", {"dir_path": ""}, QubesError),
        ("file", {**DIR, "volume_group": "dom0"}, ProtocolError),
        ("file", {"dir_path": "relative"}, BadValue),
        ("file", {"dir_path": "/a\nb"}, BadValue),
        ("file", {**DIR, "revisions_to_keep": "2"}, BadValue),
        ("file-reflink", {**DIR, "revisions_to_keep": "-2"}, BadValue),
        ("file-reflink", {**DIR, "revisions_to_keep": "many"}, BadValue),
        ("file-reflink", {**DIR, "setup_check": "maybe"}, BadValue),
        ("linux-kernel", {**DIR, "revisions_to_keep": "1"}, ProtocolError),
        ("lvm_thin", {"volume_group": "dom0"}, QubesError),
        ("lvm_thin", {**LVM, "volume_group": "-rf"}, BadValue),
        ("lvm_thin", {**LVM, "volume_group": "a/b"}, BadValue),
        ("lvm_thin", {**LVM, "thin_pool": ".."}, BadValue),
        ("lvm_thin", {**LVM, "thin_pool": "a b"}, BadValue),
        ("zfs", {"container": "-r"}, BadValue),
        ("zfs", {"container": "tank/../x"}, BadValue),
        ("zfs", {"container": "tank@snap"}, BadValue),
        ("zfs", {"container": "tank/"}, BadValue),
        ("callback", {"conf_id": "a b"}, BadValue),
        ("callback", {"conf_id": "a", "dir_path": "/d"}, ProtocolError),
    ],
)
def test_an_option_that_cannot_be_taken_is_refused(
    driver: str, given: dict[str, str], error: type[QubesError]
) -> None:
    with pytest.raises(error):
        drivers.configure("p", driver, given)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (PoolConfig("p", "nvme", {}), "no driver 'nvme'"),
        (
            PoolConfig("p", "file", {"dir_path": "/p", "revisions_to_keep": "all"}),
            "'revisions_to_keep': expected",
        ),
        (PoolConfig("p", "lvm_thin", {"volume_group": "dom0"}), "'thin_pool' is missing; mend qubes.xml"),
    ],
)
def test_a_stored_pool_that_cannot_be_made_is_named(config: PoolConfig, complaint: str) -> None:
    with pytest.raises(StorageError, match=complaint):
        drivers.make(config)


def test_tools_that_are_not_installed_are_named() -> None:
    def absent(arguments: Sequence[str], data: bytes) -> bytes:
        return run(["/nowhere/" + arguments[0], *arguments[1:]], data)

    environment = drivers.Environment(run=absent)
    for driver, given in (("lvm_thin", LVM), ("zfs", {"container": "tank"})):
        _, pool = drivers.configure("p", driver, given, environment)
        with pytest.raises(StorageError, match="not installed"):
            pool.open()


def test_a_thin_pool_that_is_not_there_is_named(tmp_path: Path) -> None:
    environment = drivers.Environment(run=Lvm(tmp_path))
    _, pool = drivers.configure("p", "lvm_thin", {**LVM, "thin_pool": "other"}, environment)
    with pytest.raises(StorageError, match="no thin pool dom0/other"):
        pool.open()
