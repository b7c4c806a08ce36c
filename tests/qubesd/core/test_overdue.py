"""Code that does not end is ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from qubesd.core.overdue import Overdue, within

ROOT = Path(__file__).parents[3]
PATIENCE = 60.0
ENDLESS = """
from qubesd.core.overdue import within

def catch_for_ever():
    while True:
        try:
            while True:
                pass
        except:
            pass

def now_and_then_it_is_left():
    while True:
        try:
            catch_for_ever()
        except:
            pass

within(0.05, now_and_then_it_is_left)
"""


def compute() -> None:
    while True:
        pass


def wait() -> None:
    time.sleep(60)


def clean_up_for_ever() -> None:
    try:
        compute()
    finally:
        compute()


def catch_everything() -> None:
    for _ in range(2):
        try:
            compute()
        except:  # noqa: E722
            continue


def fail_of_its_own() -> None:
    try:
        compute()
    except BaseException:
        raise ValueError("of its own") from None


def end_outside_of_python() -> None:
    """The signal came while nothing could be broken off."""
    sum(range(10_000_000))


BLOCKS = [compute, wait, clean_up_for_ever, catch_everything, fail_of_its_own, end_outside_of_python]


@pytest.mark.parametrize("block", [*BLOCKS, partial(sum, range(10_000_000))])
def test_it_is_broken_off(block: Callable[[], None]) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(Overdue, match="more than"):
        within(0.05, block)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_what_is_in_time_is_left_alone() -> None:
    assert within(0.02, lambda: "said") == "said"
    time.sleep(0.05)  # longer than it would have had


def test_what_goes_on_and_on_ends_the_process_and_is_named() -> None:
    process = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", ENDLESS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert process.returncode == -signal.SIGABRT
    said, _, trace = process.stderr.partition("\n")
    assert said == "what was broken off 4 times goes on, so the daemon ends"
    assert "in catch_for_ever" in trace


def test_there_is_no_limit_in_other_threads() -> None:
    done = []

    def work() -> None:
        within(0.01, lambda: time.sleep(0.03))
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def within_another(outer: float, after: Callable[[], None]) -> None:
    def block() -> None:
        with pytest.raises(Overdue):
            within(0.8, compute)
        after()

    within(outer, block)


def test_what_runs_within_another_limit_does_not_use_up_its_time() -> None:
    within_another(0.6, lambda: None)
    with pytest.raises(Overdue, match="more than 0"):
        within_another(0.6, compute)
