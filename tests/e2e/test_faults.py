"""The disk fails, at each step of each call that writes: the state before is kept, and the answer says why.

Every call of the daemon's to the kernel that touches what it keeps is made to fail in turn.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from broker.client import call
from broker.wire import Failure, FramingError
from tests.broker.rig import Daemon, answer, errors, lay_out, wait_until_served
from tests.faults.kernel import KILL, Judge, Supervisor, Touch, supervised
from tools.crashing.checks import disk_faults
from tools.crashing.subject import DAEMON


@dataclass(frozen=True)
class Held:
    """A daemon, and who decides on what it does below ``kept``."""

    daemon: Daemon
    supervisor: Supervisor

    @property
    def kept(self) -> Path:
        return self.daemon.root / "var/lib/qubes"


@contextmanager
def held(root: Path) -> Iterator[Held]:
    """A daemon on ``root`` whose disk obeys."""
    lay_out(root, "")
    (root / "run/qubesd.sock").unlink(missing_ok=True)
    command = [*DAEMON, "--root", str(root)]
    with supervised(command, root / "var/lib/qubes", root / "errors") as (process, supervisor):
        wait_until_served(root, process)
        yield Held(Daemon(root, process), supervisor)


@dataclass(frozen=True)
class Step:
    """One call: service, target, argument and payload."""

    service: str
    target: str = "dom0"
    argument: str = ""
    payload: str = ""

    def take(self, daemon: Daemon) -> bytes | Failure:
        return answer(daemon.socket, self.service, self.target, self.argument, self.payload.encode())


@dataclass(frozen=True)
class Change:
    """A step that changes something, and those that take it back."""

    do: Step
    undo: tuple[Step, ...]


SET_BACK = {
    "firewall": Step("admin.vm.firewall.Set", "work", payload="action=accept\n"),
    "notes": Step("admin.vm.notes.Set", "work", payload="forget\n"),
    "resize": Step("admin.vm.volume.Resize", "work", "private", str(2 << 30)),
    "revisions": Step("admin.vm.volume.Set.revisions_to_keep", "work", "private", "1"),
}
"""What is taken back by giving the value that it had, not by having none."""

CHANGES = [
    pytest.param(
        Change(
            Step("admin.vm.property.Set", "work", "memory", "500"),
            (Step("admin.vm.property.Reset", "work", "memory"),),
        ),
        id="property",
    ),
    pytest.param(
        Change(
            Step("admin.vm.feature.Set", "work", "menu-items", "files"),
            (Step("admin.vm.feature.Remove", "work", "menu-items"),),
        ),
        id="feature",
    ),
    pytest.param(
        Change(
            Step("admin.label.Create", argument="pink", payload="0xff00ff"),
            (Step("admin.label.Remove", argument="pink"),),
        ),
        id="label",
    ),
    pytest.param(
        Change(
            Step("admin.vm.Create.AppVM", argument="tmpl", payload="name=new label=red"),
            (Step("admin.vm.Remove", "new"),),
        ),
        id="create",
    ),
    pytest.param(
        Change(
            Step("admin.vm.Remove", "spare"),
            (Step("admin.vm.Create.StandaloneVM", payload="name=spare label=red"),),
        ),
        id="remove",
    ),
    pytest.param(
        Change(
            Step("admin.vm.firewall.Set", "work", payload="action=drop\n"),
            (SET_BACK["firewall"],),
        ),
        id="firewall",
    ),
    pytest.param(
        Change(
            Step("admin.vm.notes.Set", "work", payload="remember\n"),
            (SET_BACK["notes"],),
        ),
        id="notes",
    ),
    pytest.param(
        Change(
            Step("admin.vm.volume.Resize", "work", "private", str(4 << 30)),
            (SET_BACK["resize"],),
        ),
        id="resize",
    ),
    pytest.param(
        Change(
            Step("admin.vm.volume.Set.revisions_to_keep", "work", "private", "4"),
            (SET_BACK["revisions"],),
        ),
        id="revisions",
    ),
]

REASONS = {
    errno.EIO: "nothing was changed: Input/output error: see the log of the kernel",
    errno.ENOSPC: "nothing was changed: No space left on device: free some space there",
}
"""What an answer says of a fault, and what to do."""


def furnish(daemon: Daemon) -> None:
    daemon.create("tmpl", klass="TemplateVM")
    daemon.create("spare")
    call(daemon.socket, "admin.vm.Create.AppVM", argument="tmpl", payload=b"name=work label=red")
    for step in SET_BACK.values():
        assert not isinstance(step.take(daemon), Failure), step


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    with held(tmp_path_factory.mktemp("held") / "root") as house:
        furnish(house.daemon)
        yield house


def state(daemon: Daemon) -> dict[str, str]:
    """All that calls tell of the qubes, but the uuid, of which each has a new one when it is made again."""
    rows = call(daemon.socket, "admin.vm.List").decode("ascii").splitlines()
    told = {"labels": call(daemon.socket, "admin.label.List").decode("ascii")}
    for name in sorted(row.partition(" ")[0] for row in rows):
        properties = call(daemon.socket, "admin.vm.property.GetAll", name).decode()
        told[name] = "\n".join(line for line in properties.splitlines() if not line.startswith("uuid "))
        told[f"{name} features"] = call(daemon.socket, "admin.vm.feature.List", name).decode("ascii")
        told[f"{name} tags"] = call(daemon.socket, "admin.vm.tag.List", name).decode("ascii")
        if name == "dom0":
            continue
        for service in ("admin.vm.firewall.Get", "admin.vm.notes.Get"):
            told[f"{name} {service}"] = call(daemon.socket, service, name).decode("ascii")
        for volume in call(daemon.socket, "admin.vm.volume.List", name).decode("ascii").split():
            info = call(daemon.socket, "admin.vm.volume.Info", name, volume).decode("ascii")
            told[f"{name} {volume}"] = info
    return told


def files(house: Held) -> dict[str, int]:
    """All that lies below the folder, but the store and its copies, with its size."""
    return {
        str(path.relative_to(house.kept)): path.stat().st_size
        for path in house.kept.rglob("*")
        if path.is_file() and not path.name.startswith("qubes.xml") and path.parent.name != "backup"
    }


def nth(number: int, verdict: int) -> tuple[Judge, list[Touch]]:
    """Lets all calls go on but this one of them, counted from 0; and that one, once it has come."""
    counted = count()
    struck: list[Touch] = []

    def judge(touch: Touch) -> int:
        if next(counted) != number:
            return 0
        struck.append(touch)
        return verdict

    return judge, struck


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_step_that_fails_leaves_the_state_before(house: Held, change: Change, reason: int) -> None:
    """Where a fault does not make the call fail, then because the change is made whole without that step."""
    daemon = house.daemon
    before = state(daemon), files(house)
    refused = 0
    for number in count():
        judge, struck = nth(number, reason)
        with house.supervisor.judging(judge):
            got = change.do.take(daemon)
        if isinstance(got, Failure):
            refused += 1
            (touch,) = struck
            assert REASONS[reason] in got.message, touch
            assert str(house.kept) in got.message, touch
            assert (state(daemon), files(house)) == before, touch
        else:
            assert state(daemon) != before[0], struck
            for step in change.undo:
                assert not isinstance(step.take(daemon), Failure), struck
            assert (state(daemon), files(house)) == before, struck
        if not struck:
            break
    assert refused >= 4
    assert [*disk_faults(daemon.root)] == []
    assert "Traceback" not in errors(daemon.root)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_answered_is_on_the_disk(house: Held, change: Change) -> None:
    """Every file that was written and every folder that got or lost a name was synced before the answer."""
    for step in (change.do, *change.undo):
        with house.supervisor.judging() as touches:
            assert not isinstance(step.take(house.daemon), Failure)
        unsynced: set[Path] = set()
        for touch in touches:
            if touch.call == "unlink" and touch.paths[0].parent.name == ".pending":
                continue  # one that comes back after a loss of power does no harm
            if touch.call in ("fsync", "fdatasync"):
                unsynced.discard(touch.paths[0])
            elif touch.call in ("write", "pwrite64", "writev", "sendfile", "ftruncate", "copy_file_range"):
                unsynced.add(touch.paths[0])
            elif touch.call in ("rename", "link", "mkdir", "rmdir", "unlink") or touch.creates:
                unsynced.add(touch.paths[-1].parent)
                if touch.call in ("rename", "unlink", "rmdir"):
                    unsynced.add(touch.paths[0].parent)
                    unsynced.discard(touch.paths[0])
        assert any(touch.call == "fsync" for touch in touches)
        assert unsynced == set(), list(map(str, touches))


KILLED = [change for change in CHANGES if change.id in ("property", "create", "remove", "firewall", "resize")]
"""Each way to change what is kept; features and labels go the way of properties."""


@pytest.mark.parametrize("change", KILLED)
def test_killed_at_each_step(tmp_path: Path, change: Change) -> None:
    """Whatever the last thing was that the daemon did, the next one finds the state before or after."""
    root = tmp_path / "root"
    with held(root) as house:
        furnish(house.daemon)
        before = state(house.daemon), files(house)
        change.do.take(house.daemon)
        after = state(house.daemon), files(house)
        for step in change.undo:
            step.take(house.daemon)
    found = set()
    # Every other step, and the last: what lies between two of them is killed at by `tools/crash`.
    for number in count(0, 2):
        with held(root) as house:
            now = state(house.daemon), files(house)
            assert now in (before, after)
            assert [*disk_faults(root)] == []
            assert "Traceback" not in errors(root)
            found.add(now == after)
            if now == after:
                for step in change.undo:
                    assert not isinstance(step.take(house.daemon), Failure)
            judge, struck = nth(number, KILL)
            with house.supervisor.judging(judge), suppress(FramingError):
                change.do.take(house.daemon)
            if not struck:
                break
    assert found == {False, True}
