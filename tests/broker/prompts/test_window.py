"""The agent's window on a real display, with mouse and keyboard."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.prompts.front import PAUSE
from tests.broker.prompts.agent_rig import LIMIT, ask, device, notify
from tests.broker.prompts.display_rig import (
    CANCEL,
    FIRST_OF_TWO,
    NOTHING,
    OK,
    PYTHON,
    Desktop,
    Window,
    desktop,
    display,
    notifications,
)
from tests.broker.prompts.process_rig import MAIN, Call, environment


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    with display() as name:
        yield name


@pytest.fixture(scope="module")
def agent(screen: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desktop]:
    with desktop(screen, tmp_path_factory.mktemp("agent")) as found:
        yield found
        for complaint in ("WARNING **", "CRITICAL", "Traceback"):
            assert complaint not in found.log()


def until_answered(call: Call, act: Callable[[], object], every: float) -> float:
    """Do this again and again; the time at which that has brought an answer."""
    deadline = time.monotonic() + LIMIT
    while not call.answered():
        assert time.monotonic() < deadline
        act()
        pause = time.monotonic() + every
        while time.monotonic() < pause and not call.answered():
            time.sleep(0.01)
    return time.monotonic()


@pytest.mark.parametrize(
    ("button", "want"), [(OK, b"allow:vault"), (CANCEL, b"deny")], ids=["ok-is-the-default", "cancel"]
)
def test_a_click_counts_after_a_second_of_focus(agent: Desktop, button: tuple[int, int], want: bytes) -> None:
    call = agent.ask(ask())
    window = Window(agent.screen)
    window.click(button)
    assert not call.answered(), "without the focus"
    focused = window.focus()
    answered = until_answered(call, lambda: window.click(button), every=0.05)
    assert call.answer() == want
    assert answered - focused >= PAUSE


def test_a_click_on_another_choice_counts_after_a_second_too(agent: Desktop) -> None:
    call = agent.ask(ask())
    window = Window(agent.screen)
    focused = window.focus()
    window.click(FIRST_OF_TWO)
    early = time.monotonic() - focused < PAUSE
    until_answered(call, lambda: window.click(OK), every=0.05)
    # Where the machine was too slow, it shows nothing.
    assert call.answer() == (b"allow:vault" if early else b"allow:personal")


def test_a_key_counts_after_a_second_without_one(agent: Desktop) -> None:
    call = agent.ask(ask())
    window = Window(agent.screen)
    window.focus()
    pressed = began = time.monotonic()
    longest = 0.0
    while time.monotonic() - began < PAUSE + 0.1 and not call.answered():
        window.press("Return")
        longest, pressed = max(longest, time.monotonic() - pressed), time.monotonic()
    assert longest >= PAUSE or not call.answered(), "whoever types on means something else"
    until_answered(call, lambda: window.press("Escape"), every=PAUSE + 0.1)
    assert longest >= PAUSE or call.answer() == b"deny"


@pytest.mark.parametrize("before", [PAUSE - 0.3, PAUSE + 0.2], ids=["while-it-runs", "when-it-is-over"])
def test_the_second_begins_anew_with_the_focus(agent: Desktop, before: float) -> None:
    call = agent.ask(ask())
    window = Window(agent.screen)
    focused = window.focus()
    while time.monotonic() - focused < before:
        window.click(NOTHING)
    window.unfocus()
    window.click(OK)
    assert not call.answered()
    focused = window.focus()
    answered = until_answered(call, lambda: window.click(OK), every=0.05)
    assert call.answer() == b"allow:vault"
    assert answered - focused >= PAUSE


def test_closing_denies_at_once(agent: Desktop) -> None:
    call = agent.ask(ask())
    Window(agent.screen).close()
    assert call.answer() == b"deny"


def test_a_window_that_somebody_destroys_denies_and_the_next_one_comes(screen: str, tmp_path: Path) -> None:
    with desktop(screen, tmp_path) as agent:
        window = None
        # Several, since it depends on the moment whether one that is gone is drawn into.
        for _ in range(4):
            call = agent.ask(ask())
            window = Window(screen, after=window)
            window.destroy()
            assert call.answer() == b"deny"
        call = agent.ask(ask())
        Window(screen, after=window).close()
        assert call.answer() == b"deny"


def test_without_a_default_nothing_is_chosen_before_it_is_chosen(agent: Desktop) -> None:
    call = agent.ask(ask(default_target=""))
    window = Window(agent.screen)
    focused = window.focus()
    while time.monotonic() - focused < PAUSE + 0.2:
        window.click(OK)
    window.press("Return")
    assert not call.answered()

    def choose() -> None:
        window.click(FIRST_OF_TWO)
        window.press("Return")

    until_answered(call, choose, every=PAUSE + 0.1)
    assert call.answer() == b"allow:personal"


def test_who_asks_no_longer_has_no_window_and_notes_come_after_it(agent: Desktop) -> None:
    call = agent.ask(ask(source="first"))
    window = Window(agent.screen)
    second = agent.ask(ask(source="second"))
    assert agent.ask(notify(source="teller")).answer() == b""
    call.hang_up()
    window = Window(agent.screen, after=window)
    assert "from teller" not in agent.log()
    window.close()
    assert second.answer() == b"deny"
    agent.says("denied: qubes.Filecopy from teller to @default (the desktop shows no notification")


def test_time_denies_and_the_window_goes(screen: str, tmp_path: Path) -> None:
    with desktop(screen, tmp_path, "--timeout=3") as agent:
        first, second = agent.ask(ask(source="a")), agent.ask(ask(source="b"))
        window = Window(screen)
        assert first.answer() == b"deny"
        Window(screen, after=window).close()
        assert second.answer() == b"deny"
        agent.says("from a: denied: time is up")
        agent.agent.terminate()
        assert agent.agent.wait(LIMIT) == 0
        assert not agent.path.exists()


def test_the_desktop_shows_notes_as_texts(screen: str, tmp_path: Path) -> None:
    with notifications() as (bus, told), desktop(screen, tmp_path, bus=bus) as agent:
        assert agent.ask(notify(target="<b>&\n", resolution="fail")).answer() == b""
        _, _, icon, title, body, actions, hints, _ = json.loads(told.readline())
        assert (icon, title, actions, hints) == ("dialog-warning", "Calls between qubes", [], {})
        assert body == r"failed: qubes.Filecopy from work to &lt;b&gt;&amp;\x0a"


def labels(screen: str, message: bytes) -> list[tuple[str, bool]]:
    """All texts of the question's window, in order, and whether each is read as markup."""
    done = subprocess.run(
        [PYTHON, "-m", "tests.broker.prompts.window_probe"],
        input=message,
        capture_output=True,
        timeout=LIMIT,
        check=False,
        env=environment(DISPLAY=screen, NO_AT_BRIDGE="1"),
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return [(text, markup) for text, markup in json.loads(done.stdout)]


def test_what_the_window_says(screen: str) -> None:
    said = ask(
        service="admin.vm.property.Set",
        argument="+netvm of vault = ",
        targets=["dom0", "x"],
        default_target="x",
        icons={"x": "no-such-icon"},
    )
    assert [text for text, _ in labels(screen, said)] == [
        "Shall this call be made?",
        *("Source", "work", "Service", "admin.vm.property.Set", "Argument", "+netvm"),
        *("Requested target", "vault", "Value", "empty"),
        "Where it may go:",
        *("dom0", "x", "(default)"),
        *("Denied by itself in 1:40", "Cancel", "OK"),
    ]


def test_what_the_window_says_of_a_device(screen: str) -> None:
    assert [text for text, _ in labels(screen, device())] == [
        "Shall this device be attached?",
        *("Source", "sys-usb", "Device", "Big Disk", "Port", "sda"),
        "Where it may go:",
        *("work", "(default)"),
        *("Denied by itself in 1:40", "Cancel", "OK"),
    ]


def test_hostile_texts_are_texts(screen: str) -> None:
    argument = "+<b>x</b>&amp;\u202e\x1b[2J of <span>\n = " + "</i> " * 200
    found = labels(screen, ask(argument=argument))
    texts = [text for text, _ in found]
    assert r"+<b>x</b>&amp;\u202e\x1b[2J" in texts
    assert r"<span>\x0a" in texts
    assert ("</i> " * 60, False) in found
    assert ("cut short: 700 more characters", False) in found
    assert not any(markup for _, markup in found)
    assert all(text.isascii() and text.isprintable() for text in texts)


@pytest.mark.parametrize(
    ("python", "display", "says"),
    [
        pytest.param(PYTHON, ":none", "no display can be opened; set DISPLAY", id="no-display"),
        pytest.param(
            sys.executable, ":none", "install python3-gi and gir1.2-gtk-3.0, or give --tty", id="no-gtk"
        ),
    ],
)
def test_where_there_can_be_no_windows(screen: str, python: str, display: str, says: str) -> None:
    done = subprocess.run(
        [python, "-m", MAIN, "--socket-path=/none/x"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=environment(DISPLAY=display),
    )
    assert done.returncode == 1
    assert says in done.stderr
