"""Limits of the policy over real sockets: exact however many ask at once, and told to the owner alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.client import call
from broker.wire import Failure
from tests.broker.rig import Daemon, answer, serving

POLICY = """\
!dialect delegation-1
!limit @tag:operator qubes=10 storage=140GiB
admin.vm.Create.StandaloneVM + @tag:operator @adminvm allow
admin.vm.Remove|admin.vm.Start|admin.vm.volume.Resize * @tag:operator @tag:created-by-{source} allow
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with serving(tmp_path, POLICY) as daemon:
        daemon.create("alice", "bob", tags={"alice": "operator", "bob": "operator"})
        yield daemon


def make(daemon: Daemon, operator: str, number: int) -> bytes | Failure:
    payload = f"name={operator}-{number} label=red".encode()
    return answer(daemon.channel(operator), "admin.vm.Create.StandaloneVM", payload=payload)


def test_a_hundred_at_once_make_ten(daemon: Daemon) -> None:
    with ThreadPoolExecutor(50) as pool:
        alices = [pool.submit(make, daemon, "alice", number) for number in range(100)]
        bobs = [pool.submit(make, daemon, "bob", number) for number in range(12)]
        answers = {who: [one.result() for one in asked] for who, asked in (("a", alices), ("b", bobs))}
    for given in answers.values():
        assert given.count(b"") == 10
        assert all(isinstance(one, Failure) and one.kind == "PermissionDenied" for one in given if one)
    names = [row.split()[0] for row in call(daemon.socket, "admin.vm.List").decode().splitlines()]
    assert len([name for name in names if name.startswith("alice-")]) == 10
    folders = sorted(path.name for path in (daemon.root / "var/lib/qubes/appvms").iterdir())
    assert folders == sorted(name for name in names if name != "dom0")


def test_what_is_removed_makes_room(daemon: Daemon) -> None:
    for number in range(10):
        assert make(daemon, "alice", number) == b""
    over = make(daemon, "alice", 10)
    assert isinstance(over, Failure)
    assert "qubes: 10 of 10" in over.message
    assert call(daemon.channel("alice"), "admin.vm.Remove", "alice-3") == b""
    assert make(daemon, "alice", 10) == b""


def test_storage_is_counted_in_bytes_of_kept_volumes(daemon: Daemon) -> None:
    assert make(daemon, "alice", 0) == b""
    grown = answer(
        daemon.channel("alice"), "admin.vm.volume.Resize", "alice-0", "private", b"%d" % (100 * 2**30)
    )
    assert grown == b""
    over = answer(daemon.channel("alice"), "admin.vm.volume.Resize", "alice-0", "root", b"%d" % (60 * 2**30))
    assert isinstance(over, Failure)
    assert "storage" in over.message
