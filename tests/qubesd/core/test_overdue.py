"""Code that does not end is ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from qubesd.core.overdue import Overdue, within


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


@pytest.mark.parametrize("block", [compute, wait, clean_up_for_ever, catch_everything, fail_of_its_own])
def test_it_is_broken_off(block: object) -> None:
    assert callable(block)
    with pytest.raises(Overdue, match="more than"), within(0.05):
        block()


def test_what_is_in_time_is_left_alone() -> None:
    with within(0.02):
        pass
    time.sleep(0.05)  # longer than it would have had


def test_there_is_no_limit_in_other_threads() -> None:
    done = []

    def work() -> None:
        with within(0.01):
            time.sleep(0.03)
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


def within_another(outer: float, after: Callable[[], None]) -> None:
    with within(outer):
        with pytest.raises(Overdue), within(0.8):
            compute()
        after()


def test_what_runs_within_another_limit_does_not_use_up_its_time() -> None:
    within_another(0.6, lambda: None)
    with pytest.raises(Overdue, match="more than 0"):
        within_another(0.6, compute)
