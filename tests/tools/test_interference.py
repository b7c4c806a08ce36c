"""Some calls, of the thousands that ``tools/interference`` makes; and that it finds what it is to find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qubesd.api.table import METHODS
from tests.tools.leaky_daemon import FLAWS
from tools.interfering.campaign import Campaign
from tools.interfering.masks import Masks
from tools.interfering.rules import RULES
from tools.interfering.steps import steps

ROOT = Path(__file__).parents[2]
LEAKY = str(Path(__file__).with_name("leaky_daemon.py"))


@pytest.mark.parametrize("rules", sorted(RULES))
def test_what_an_operator_may_not_see_makes_no_difference_to_it(rules: str) -> None:
    done = subprocess.run(
        [ROOT / "tools/interference", "--rules", rules, "--calls", "200", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["calls"] == 200
    assert report["differences"] == 0
    assert report["answers"]["ok"] > 20
    assert report["concealed_done"] > 20
    assert report["events"] > 0


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_leak_is_found(tmp_path: Path, flaw: str) -> None:
    campaign = Campaign(tmp_path, (sys.executable, LEAKY, flaw), search=0)
    report = campaign.run(1, 2_000)
    assert report.difference is not None
    assert report.difference.one != report.difference.other


def test_every_method_is_called() -> None:
    called = {step.service for step in steps(1, 2 * len(METHODS), RULES["dialect"].words)}
    assert called == METHODS.keys()


A, B = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


@pytest.mark.parametrize(
    ("data", "asked", "plain"),
    [
        pytest.param(b"0\0work uuid=%s" % A.encode(), "", b"0\0work uuid=<uuid of work>", id="uuid"),
        pytest.param(b"0\0%s %s" % ((B.encode(),) * 2), "", b"0\0<0> <0>", id="one-uuid-twice"),
        pytest.param(b"0\0disp7", "", b"0\0<0>", id="disposable"),
        pytest.param(b"0\0b\ndisp7\na", "", b"0\0<0>\na\nb", id="rows-with-a-disposable"),
        pytest.param(b"0\0b\na", "", b"0\0b\na", id="rows-without"),
        pytest.param(b"0\0default=False type=int 7", "qid", b"0\0default=False type=int <drawn>", id="qid"),
        pytest.param(b"0\0default=False type=int 7", "memory", b"0\0default=False type=int 7", id="memory"),
        pytest.param(
            b"0\0qid default=False type=int 7\nmemory default=True type=int 400\n",
            "",
            b"0\0qid default=False type=int <drawn>\nmemory default=True type=int 400\n",
            id="all-properties",
        ),
        pytest.param(b"0\0mem=1 cputime=5", "", b"0\0mem=1 cputime=<left out>", id="clock"),
        pytest.param(b"0\0size=8\nusage=5\n", "", b"0\0size=8\nusage=<left out>\n", id="usage"),
        pytest.param(
            b"1\0a\0property-reset:ip\0name\0ip\0oldvalue\x0010.1.2.3\0\0\n1\0a\0x\0oldvalue\0y\0\0",
            "",
            b"1\0a\0property-reset:ip\0name\0ip\0oldvalue\0<drawn>\0\0\n1\0a\0x\0oldvalue\0y\0\0",
            id="event-of-a-drawn-property",
        ),
        pytest.param(
            b"1\0a\0property-set:label\0name\0label\0newvalue\0red\0\0",
            "",
            b"1\0a\0property-set:label\0name\0label\0newvalue\0red\0\0",
            id="event-of-another",
        ),
        pytest.param(b"2\0X\0\0no /there/x\0", "", b"2\0X\0\0no /root/x\0", id="path"),
    ],
)
def test_only_what_is_drawn_is_masked(data: bytes, asked: str, plain: bytes) -> None:
    masks = Masks(Path("/there"))
    masks.names[A.encode()] = b"work"
    assert masks.plain(data, asked) == plain
