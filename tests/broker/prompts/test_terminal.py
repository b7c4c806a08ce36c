"""The agent in a terminal, typed at as people do."""

from __future__ import annotations

import grp
import re
import signal
import stat
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from broker.prompts.front import PAUSE
from tests.broker.prompts.agent_rig import LIMIT, ask, notify
from tests.broker.prompts.process_rig import MAIN, environment, typist

PROMPT = "allow, Enter for 2, d denies: "
CONFIRM = "all else denies: "

ANSWERS: dict[str, tuple[list[tuple[str, bytes]], bytes]] = {
    "number": ([(PROMPT, b"1\r")], b"allow:personal"),
    "default": ([(PROMPT, b"\r"), (CONFIRM, b"yes\r")], b"allow:vault"),
    "default-not-confirmed": ([(PROMPT, b"\r"), (CONFIRM, b"\r")], b"deny"),
    "mistaken": ([(PROMPT, b"7\r"), ("none of the answers", b"2\r")], b"allow:vault"),
    "deny": ([(PROMPT, b"d\r")], b"deny"),
    "ctrl-c": ([(PROMPT, b"\x03")], b"deny"),
    "ctrl-d": ([(PROMPT, b"\x04")], b"deny"),
}
"""What is typed when the screen says what."""


def test_answers(tmp_path: Path) -> None:
    """All at once, each on a terminal of its own: nobody can type for the first second."""
    with ExitStack() as stack:
        calls = {}
        for name in ANSWERS:
            (tmp_path / name).mkdir()
            typing = stack.enter_context(typist(tmp_path / name))
            calls[name] = typing, typing.ask(ask())
        got = {}
        for name, (steps, _) in ANSWERS.items():
            typing, call = calls[name]
            for shown, keys in steps:
                typing.sees(shown)
                assert not call.answered(), name
                typing.types(keys)
            got[name] = call.answer()
            typing.sees("Denied." if got[name] == b"deny" else "Allowed to")
    assert got == {name: want for name, (_, want) in ANSWERS.items()}


def test_what_is_typed_ahead_counts_for_nothing(tmp_path: Path) -> None:
    with typist(tmp_path) as typing:
        typing.sees("Ctrl-C ends this.")
        typing.types(b"1\r\ryes\r")
        began = time.monotonic()
        call = typing.ask(ask())
        typing.sees("One moment")
        typing.types(b"1\r\ryes\r\x03")
        typing.sees(PROMPT)
        assert time.monotonic() - began >= PAUSE
        assert "yes" not in typing.screen, "nor is it shown"
        assert not call.answered()
        typing.types(b"2\r")
        assert call.answer() == b"allow:vault"


def test_time_denies_and_the_next_question_waits_anew(tmp_path: Path) -> None:
    with typist(tmp_path, "--timeout=2.5") as typing:
        first, second = typing.ask(ask(source="a")), typing.ask(ask(source="b"))
        typing.sees(PROMPT)
        typing.types(b"1")
        assert first.answer() == b"deny"
        typing.sees("Denied: time is up.")
        # Typed for the first one, if too late.
        typing.types(b"\r")
        typing.sees("One moment", times=2)
        assert not second.answered()
        second.hang_up()


def test_a_question_that_is_taken_back_goes(tmp_path: Path) -> None:
    with typist(tmp_path) as typing:
        call = typing.ask(ask())
        typing.sees("One moment")
        call.hang_up()
        typing.sees("Denied: whoever asked has gone.")


def test_notes_wait_until_the_question_is_answered(tmp_path: Path) -> None:
    with typist(tmp_path) as typing:
        assert typing.ask(notify(source="other")).answer() == b""
        typing.sees("denied: qubes.Filecopy from other to @default")
        call = typing.ask(ask())
        typing.sees("One moment")
        assert typing.ask(notify()).answer() == b""
        typing.sees(PROMPT)
        typing.types(b"d\r")
        assert call.answer() == b"deny"
        screen = typing.sees("denied: qubes.Filecopy from work to @default")
        assert screen.index("Denied.") < screen.index("from work to @default")


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_hostile_texts_are_harmless(tmp_path: Path, term: str) -> None:
    hostile = "\x1b[2J\x1b]0;x\x07\x9b1A\r\n\b\u202e<b>" + " " * 200 + "A" * 900
    argument = f"+{hostile.replace(' ', '')} of {hostile.replace(' ', '')} = {hostile}"
    with typist(tmp_path, term=term) as typing:
        assert typing.ask(notify(argument=argument, target=hostile)).answer() == b""
        call = typing.ask(ask(argument=argument))
        screen = typing.sees("One moment")
        call.hang_up()
    assert r"\x1b[2J\x1b]0;x\x07\x9b1A\x0d\x0a\x08\u202e<b>" in screen
    assert screen.count("cut short") == 5
    ours = screen if term == "dumb" else re.sub(r"\x1b\[(0|1|2|31|32|33)m", "", screen)
    assert set(re.findall(r"[^ -~]", ours)) == {"\r", "\n"}


@pytest.mark.parametrize("way", ["ctrl-c", "ctrl-d", "sigterm", "sigint"])
def test_it_ends_when_it_is_told_to(tmp_path: Path, way: str) -> None:
    with typist(tmp_path) as typing:
        typing.sees("Ctrl-C ends this.")
        if way.startswith("sig"):
            typing.agent.send_signal(getattr(signal, way.upper()))
        else:
            typing.types({"ctrl-c": b"\x03", "ctrl-d": b"\x04"}[way])
        assert typing.ends() == 0
        assert not typing.path.exists()


def test_who_closes_the_terminal_allows_nothing(tmp_path: Path) -> None:
    with typist(tmp_path) as typing:
        call = typing.ask(ask())
        typing.sees("One moment")
        typing.leaves()
        assert call.answer() in (b"", b"deny")
        typing.agent.wait(LIMIT)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", MAIN, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=environment(),
    )


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        pytest.param(["--tty"], 1, "this is no terminal; run it in one, or without --tty", id="no-terminal"),
        pytest.param(["--timeout", "1"], 2, "expected seconds, more than 1 and at most 600", id="too-short"),
        pytest.param(["--timeout", "x"], 2, "expected seconds", id="no-number"),
        pytest.param(["--timeout", "nan"], 2, "expected seconds", id="nan"),
    ],
)
def test_what_it_cannot_do(options: list[str], status: int, says: str) -> None:
    done = run(*options)
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr


def test_only_this_user_and_the_group_of_dom0_can_ask(tmp_path: Path) -> None:
    with typist(tmp_path) as typing:
        typing.sees("Ctrl-C ends this.")
        found = typing.path.stat()
        groups = [group.gr_gid for group in grp.getgrall() if group.gr_name == "qubes"]
        warned = "no group 'qubes' on this machine: only this user can ask" in typing.screen
        assert (stat.S_IMODE(found.st_mode), warned) == ((0o660, False) if groups else (0o600, True))
        assert not groups or [found.st_gid] == groups


def test_where_there_can_be_no_socket(tmp_path: Path) -> None:
    with typist(tmp_path / "none") as typing:
        typing.sees("No such file or directory; make its folder, or give --socket-path")
        assert typing.ends() == 1
    with typist(tmp_path) as typing:
        typing.sees("Ctrl-C ends this.")
        with typist(tmp_path) as another:
            another.sees("end the agent that runs already, or give --socket-path")
            assert another.ends() == 1
        assert typing.path.exists()


def test_help_has_examples() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "examples:" in done.stdout
    assert "/etc/qubes-rpc/policy.Ask" in done.stdout


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; import broker.prompts.main\n"
        "print({name.split('.')[0] for name in sys.modules} & "
        "{'lark', 'lxml', 'libvirt', 'policy_engine', 'qubesd', 'gi', 'pyinotify'})"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
        env=environment(),
    )
    assert done.stdout == "set()\n"
