"""Code that does not end is ended."""

from __future__ import annotations

import threading
import time

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


@pytest.mark.parametrize("block", [compute, wait, clean_up_for_ever])
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
