"""A few kills, of the hundreds that ``tools/crash`` makes; and that it finds what it is there to find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from broker.client import CallError, NoReplyError
from broker.wire import Failure
from tools.crashing.campaign import Campaign
from tools.crashing.checks import disk_faults
from tools.crashing.ledger import ABSENT, QUBE, THERE, Ledger
from tools.crashing.mix import KINDS

ROOT = Path(__file__).parents[2]
FORGETFUL = (sys.executable, str(Path(__file__).with_name("forgetful_daemon.py")))


def test_what_was_acknowledged_outlives_kills() -> None:
    done = subprocess.run(
        [ROOT / "tools/crash", "--kills", "6", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] == 6
    assert report["finding"] is None
    assert report["checked"] > 0
    assert report["acknowledged"].keys() <= KINDS.keys()


def test_a_daemon_that_forgets_is_found(tmp_path: Path) -> None:
    report = Campaign(1, tmp_path, command=FORGETFUL).run(20)
    assert report.finding is not None
    signs = ("expected one of", "qubes that nobody made", "belongs to no qube", "has no image")
    assert any(sign in report.finding for sign in signs), report.finding


def test_a_daemon_that_does_not_start_is_found(tmp_path: Path) -> None:
    report = Campaign(1, tmp_path, command=(sys.executable, "-c", "exit('no')")).run(3)
    assert report.finding == "after kill 0: the daemon does not start:\nno\n"


MEMORY = ("property", "work", "memory")
WORK = (QUBE, "work")


@pytest.mark.parametrize(
    ("ending", "wanted"),
    [
        pytest.param(None, {"500"}, id="acknowledged"),
        pytest.param(CallError(Failure("QubesException", "no")), {"400"}, id="refused"),
        pytest.param(NoReplyError("gone"), {"400", "500"}, id="unanswered"),
    ],
)
def test_what_a_thing_may_be_after_a_call(ending: Exception | None, wanted: set[str]) -> None:
    ledger = Ledger()
    ledger.observe(MEMORY, "400")
    if ending is None:
        with ledger.writing({MEMORY: "500"}):
            pass
    else:
        with pytest.raises(type(ending)), ledger.writing({MEMORY: "500"}):
            raise ending
    assert ledger.may(MEMORY) == wanted
    assert not ledger.observe(MEMORY, "600")
    assert ledger.may(MEMORY) == {"600"}


def test_a_removed_qube_takes_along_what_was_known_of_it() -> None:
    ledger = Ledger()
    with ledger.writing({WORK: THERE}):
        pass
    ledger.observe(MEMORY, "400")
    with pytest.raises(NoReplyError), ledger.writing({WORK: ABSENT}):
        raise NoReplyError("gone")
    assert ledger.may(WORK) == {THERE, ABSENT}
    assert ledger.may(MEMORY) == {"400"}
    assert ledger.observe(WORK, ABSENT)
    assert ledger.things() == []


def test_left_overs_are_faults(tmp_path: Path) -> None:
    assert Campaign(1, tmp_path).run(0).finding is None
    root = tmp_path / "root"
    channels = [*(root / "run/rpc").iterdir()]
    assert channels == []
    faults = [*disk_faults(root)]
    assert len(faults) == 2
    assert all("the channel of a qube is missing" in fault for fault in faults)
    (root / "var/lib/qubes/qubes.xml~new").touch()
    assert "left by a write that did not end" in next(disk_faults(root))
