"""dom0's home in an archive, as plain ``tar`` finds it there."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from pathlib import Path

import pytest

from qubesd.backup.home import home_in_group, used, write_home
from qubesd.backup.processes import Processes
from qubesd.errors import QubesError


def test_a_home_comes_back_with_its_links(tmp_path: Path) -> None:
    home, back, stream = tmp_path / "ann", tmp_path / "back", tmp_path / "stream"
    (home / ".config").mkdir(parents=True)
    back.mkdir()
    (home / ".config/x").write_text("content")
    (home / "s").symlink_to("/etc/passwd")
    os.link(home / ".config/x", home / "h")
    with stream.open("wb") as out:
        write_home(home, out.fileno(), Processes())
    subprocess.run(["tar", "-x", "-f", stream, "-C", back], check=True)
    there = back / "dom0-home/ann"
    assert (there / ".config/x").read_text() == "content"
    assert os.readlink(there / "s") == "/etc/passwd"
    assert (there / "h").samefile(there / ".config/x")
    assert os.listdir(back) == ["dom0-home"]
    assert 0 < used(home) < 1 << 20


def test_a_home_that_goes_away_is_told_by_its_name(tmp_path: Path) -> None:
    with (
        (tmp_path / "stream").open("wb") as out,
        pytest.raises(QubesError, match=r"tar failed: .*ann.*No such"),
    ):
        write_home(tmp_path / "ann", out.fileno(), Processes())


def test_what_cannot_be_looked_at_does_not_count(tmp_path: Path) -> None:
    """Such as a file whose path is longer than a path can be."""
    (tmp_path / "x").write_bytes(os.urandom(10_000))
    most = used(tmp_path)
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        os.close(os.open("f" * 250, os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert used(tmp_path) == most


@pytest.mark.parametrize("group", ["", "no-such-group", "root"])
def test_nobody_has_a_home_to_save(group: str) -> None:
    assert home_in_group(group) is None


def test_the_first_member_has_one_where_it_really_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The users of this machine cannot be had otherwise."""
    (tmp_path / "disk/ann").mkdir(parents=True)
    (tmp_path / "ann").symlink_to("disk/ann")
    group = grp.struct_group(("qubes", "x", 98, ["ann", "bob"]))
    user = pwd.struct_passwd(("ann", "x", 1000, 1000, "", str(tmp_path / "ann"), "/bin/sh"))
    monkeypatch.setattr("grp.getgrnam", {"qubes": group}.__getitem__)
    monkeypatch.setattr("pwd.getpwnam", {"ann": user}.__getitem__)
    assert home_in_group("qubes") == tmp_path / "disk/ann"
    assert home_in_group("wheel") is None
