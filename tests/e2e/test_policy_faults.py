"""The disk fails at each step of an edit of the policy: the files stay what they were, or it is made whole.

Every call of the daemon's to the kernel that touches the policy or its history is made to fail in turn.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from broker.editing.edits import PolicyEdits, places_of
from broker.wire import Failure
from qubesd.config import load
from tests.broker.rig import Daemon, answer, errors, lay_out, wait_until_served
from tests.e2e.test_faults import nth
from tests.faults.kernel import Supervisor, supervised
from tools.crashing.subject import DAEMON

RULE = b"s.A * a b allow\n"
REASONS = {errno.EIO: "Input/output error", errno.ENOSPC: "No space left on device: free some space there"}


@dataclass(frozen=True)
class Held:
    """A daemon whose policy and history lie below ``etc``, and who decides on what it does there."""

    daemon: Daemon
    supervisor: Supervisor

    @property
    def edits(self) -> PolicyEdits:
        return PolicyEdits(places_of(load(self.daemon.root)))

    def files(self) -> dict[str, bytes]:
        """All that the policy directory has, but what loaders pass over since an edit was cut short."""
        place = self.daemon.root / "etc/qubes/policy.d"
        return {
            str(path.relative_to(place)): path.read_bytes()
            for path in place.rglob("*")
            if path.is_file() and not path.name.startswith(".qubes-policy-")
        }


@contextmanager
def held(root: Path) -> Iterator[Held]:
    lay_out(root, "", f'policy_history = "{root}/etc/history"\n')
    (root / "etc/qubes/policy.d/include").mkdir()
    with supervised([*DAEMON, "--root", str(root)], root / "etc", root / "errors") as (process, supervisor):
        wait_until_served(root, process)
        yield Held(Daemon(root, process), supervisor)


@pytest.fixture(scope="module", name="house")
def fixture_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    with held(tmp_path_factory.mktemp("held") / "root") as house:
        yield house


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize(
    ("service", "argument", "payload"),
    [
        pytest.param("policy.Replace", "30-new", b"new\n" + RULE, id="new"),
        pytest.param("policy.Replace", "40-user", b"any\n" + RULE * 2, id="replace"),
        pytest.param("policy.Remove", "40-user", b"any", id="remove"),
    ],
)
def test_a_step_that_fails_leaves_the_files_before(
    service: str, argument: str, payload: bytes, reason: int, house: Held
) -> None:
    socket, place = house.daemon.socket, house.daemon.root / "etc/qubes/policy.d"
    refused = 0
    for number in count():
        (place / "30-new.policy").unlink(missing_ok=True)
        (place / "40-user.policy").write_bytes(RULE)
        before = house.files()
        judge, struck = nth(number, reason)
        with house.supervisor.judging(judge):
            got = answer(socket, service, "dom0", argument, payload)
        if isinstance(got, Failure):
            refused += 1
            assert got.kind == "QubesException"
            assert "the policy was not changed: " + REASONS[reason] in got.message, struck
            assert str(house.daemon.root) not in got.message
            assert house.files() == before, struck
        else:
            assert house.files() != before, struck
        assert house.edits.faults({}) is None
        after = house.files()
        house.edits.notice()
        assert house.files() == after, struck
        newest = house.edits.history()[-1]
        assert house.edits.state(newest.number) == after, struck
        assert (str(newest.author) == "dom0") is not isinstance(got, Failure), struck
        if not struck:
            break
    assert refused >= 8
    assert "Traceback" not in errors(house.daemon.root)


def test_what_is_answered_is_on_the_disk(house: Held) -> None:
    """Every file that was written and every folder that got or lost a name was synced before the answer."""
    for service, payload in (("policy.Replace", b"any\n" + RULE), ("policy.Remove", b"any")):
        with house.supervisor.judging() as touches:
            assert answer(house.daemon.socket, service, "dom0", "50-kept", payload) == b""
        unsynced: set[Path] = set()
        for touch in touches:
            if touch.call == "fsync":
                unsynced.discard(touch.paths[0])
            elif touch.call in ("write", "ftruncate"):
                unsynced.add(touch.paths[0])
            elif touch.call in ("rename", "link", "mkdir") or touch.creates:
                unsynced.add(touch.paths[-1].parent)
                unsynced.discard(touch.paths[0])
        assert any(touch.call == "fsync" for touch in touches)
        assert unsynced == set(), list(map(str, touches))
