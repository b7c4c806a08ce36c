"""An edit that is killed at any of its steps leaves old or new files, and a history that comes to agree.

Each edit runs in a process of its own, which ends at its Nth call about files, as Python's audit tells of
them.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Container
from itertools import count
from pathlib import Path

import pytest

from broker.editing.edits import ANY_TOKEN, PolicyEdits
from broker.editing.store import token_of
from qubesd.errors import PolicyTokenError
from tests.broker.editing.edits_rig import ME, RULE, Desk

_COUNTED = ("open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.chmod", "os.truncate", "fcntl.flock")

Edit = Callable[[PolicyEdits], object]


def killed_at(step: int, edits: PolicyEdits, edit: Edit, counted: Container[str] = _COUNTED) -> bool:
    """Run the edit in a process that is killed at its step of this number; whether there was such a step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the runner of the tests has threads
        child = os.fork()
    if child == 0:
        steps = count()

        def kill(event: str, arguments: object) -> None:
            if event in counted and next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        edit(edits)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def replaced(edits: PolicyEdits) -> None:
    edits.replace(ME, "30-user.policy", ANY_TOKEN, RULE.encode() * 2)


def removed(edits: PolicyEdits) -> None:
    edits.remove(ME, "30-user.policy", ANY_TOKEN)


def several(edits: PolicyEdits) -> None:
    edits.change(ME, {**MOVED, "include/old": None})


MOVED = {"10-a.policy": b"!include include/new\n", "30-user.policy": b"", "include/new": b""}


@pytest.mark.parametrize(
    ("edit", "noticed"),
    [
        pytest.param(replaced, False, id="replace-as-the-first-edit"),
        pytest.param(removed, True, id="remove"),
        pytest.param(several, True, id="several"),
    ],
)
def test_killed_at_each_step(edit: Edit, noticed: bool, tmp_path: Path) -> None:
    texts = {"10-a.policy": "!include include/old\n", "30-user.policy": RULE, "include/old": RULE}
    before = {file: text.encode() for file, text in texts.items()}
    unharmed = Desk(tmp_path / "unharmed", texts)
    edit(unharmed.edits)
    made = unharmed.files()
    outcomes = set[bool]()
    for step in count():
        desk = Desk(tmp_path / str(step), texts)
        if noticed:
            desk.edits.notice()
        struck = killed_at(step, desk.edits, edit)
        for file, content in desk.files().items():
            assert content in (before.get(file), made.get(file)) or Path(file).name.startswith(".qubes")
        assert desk.edits.faults({}) is None
        desk.edits.notice()
        after = desk.files()
        assert after in (before, made)
        assert desk.agrees()
        outcomes.add(after == made)
        # It is entered as the change that it was, by whoever made it.
        authors = ["", "dom0 (me)"] if after == made else [""]
        assert [str(entry.author) for entry in desk.edits.history()] == authors
        if not struck:
            break
    assert outcomes == {False, True}
    assert step > 8


def test_who_edits_after_an_edit_that_was_killed_sees_what_came_of_it(tmp_path: Path) -> None:
    """The token is of the file as it is when what was cut short has been mended."""
    outcomes = set[bool]()
    for step in count(step=3):
        texts = {"10-a.policy": "!include include/old\n", "30-user.policy": RULE, "include/old": RULE}
        desk = Desk(tmp_path / str(step), texts)
        struck = killed_at(step, desk.edits, several)
        try:
            desk.edits.replace(ME, "30-user.policy", token_of(RULE.encode()), b"# mine\n")
        except PolicyTokenError:
            assert desk.files() == {
                "10-a.policy": b"!include include/new\n",
                "30-user.policy": b"",
                "include/new": b"",
            }
            outcomes.add(False)
        else:
            assert desk.files() == {
                "10-a.policy": b"!include include/old\n",
                "30-user.policy": b"# mine\n",
                "include/old": RULE.encode(),
            }
            outcomes.add(True)
        assert desk.agrees()
        if not struck:
            break
    assert outcomes == {False, True}
