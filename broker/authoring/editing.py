"""A policy file in an editor: no broken policy is left, and what changes is shown before it is in force."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from broker.authoring.desk import Desk, desk_of
from broker.authoring.preview import Previews
from broker.authoring.questions import QUIT, choose, consent
from broker.authoring.trial import tried
from broker.colour import Colours
from broker.described import ToolError
from broker.editing.names import file_named, shown
from qubesd.config import Config
from qubesd.errors import PolicySyntaxError, PolicyTokenError

_AGAIN, _KEEP, _DONE = "e", "x", ""
_CHOICES = {
    _AGAIN: "edit again",
    QUIT: "quit and change nothing",
    _KEEP: "quit and keep what was written beside",
}


def edit_named(options: argparse.Namespace, config: Config) -> int:
    """``edit`` as the command line has it."""
    previews = Previews(config, Colours.of(sys.stdout), options.system_info)
    return edit(desk_of(config), file_named(options.name), previews, options.yes)


def edit(desk: Desk, file: str, previews: Previews, yes: bool = False) -> int:
    """Have a file edited, until it is good or given up.

    Args:
        yes: whether a change that gives no reason for a warning needs no answer.

    Returns:
        0 where the file is as the editor left it, 1 where it is as it was.

    Raises:
        ToolError: there is no editor, or nobody to ask.
        PolicyAdminError, StoreError: as the desk raises them.
    """
    token, before = desk.get(file)
    folder = Path(tempfile.mkdtemp(prefix="qubes-policy-"))
    draft = folder / Path(file).name
    draft.write_bytes(before)
    kept = False
    try:
        answer = _edited(desk, file, token, draft, previews, yes)
        kept = answer == _KEEP
    except BaseException:
        # Whatever went wrong, what somebody has written is theirs.
        kept = draft.read_bytes() != before
        raise
    finally:
        if kept:
            print(f"{shown(file)}: what was written is in {draft}")
        else:
            shutil.rmtree(folder)
    if answer == _DONE:
        return 0
    print(f"{shown(file)}: not changed")
    return 1


def _edited(desk: Desk, file: str, token: str, draft: Path, previews: Previews, yes: bool) -> str:
    """Edit a draft until it is in force (``_DONE``), or given up."""
    before = draft.read_bytes()
    while True:
        _run_editor(draft)
        content = draft.read_bytes()
        if content == before:
            print(f"{shown(file)}: nothing was changed")
            return _DONE
        answer = _judged(desk, file, before, content, previews, yes)
        if answer == _DONE:
            try:
                desk.replace(file, token, content)
            except PolicySyntaxError as error:
                print(error)
                answer = choose(_CHOICES)
            except PolicyTokenError:
                print(f"{shown(file)}: somebody else has changed it meanwhile, so it is left as it is")
                answer = _KEEP
        if answer != _AGAIN:
            return answer


def _judged(desk: Desk, file: str, before: bytes, content: bytes, previews: Previews, yes: bool) -> str:
    """What its author wants to do with a draft, having seen what it does."""
    there, changes = {file: before} if before else {}, {file: content}
    preview = tried(desk, previews, there, changes)
    if preview is None:
        return choose(_CHOICES)
    if yes and not preview.warnings:
        return _DONE
    answer = choose({consent(preview): "put it into force", **_CHOICES})
    return _DONE if answer == consent(preview) else answer


def _run_editor(draft: Path) -> None:
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    sys.stdout.flush()
    # Ctrl-C is for the editor, which has its own way with it.
    ours = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        done = subprocess.run([*words, draft], check=False)
    except OSError as error:
        raise ToolError(f"{words[0]}: {error.strerror}; name an editor in $VISUAL") from error
    finally:
        signal.signal(signal.SIGINT, ours)
    if done.returncode != 0:
        raise ToolError(f"{words[0]} failed with status {done.returncode}")
