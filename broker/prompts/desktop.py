"""Questions in windows: GTK in the main thread, the agent's loop in another one. What passes between the two
is handed over whole, to be called where it belongs."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from broker.prompts.bubbles import show_bubble
from broker.prompts.front import Answer
from broker.prompts.messages import Question
from broker.prompts.notes import Told
from broker.prompts.serving import AgentError, serving
from broker.prompts.toolkit import Gdk, GLib, Gtk
from broker.prompts.window import QuestionWindow

_log = logging.getLogger(__name__)


class Desktop:
    """A front of windows. Its public methods are called on ``loop``, and pass on to GTK's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._window: QuestionWindow | None = None
        """Of the question that was put last, until it is closed; for GTK's thread alone."""

    def show(self, question: Question, deadline: float, answer: Answer) -> None:
        def said(target: str | None) -> None:
            # An agent that has ended hears nothing any more.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(answer, target)

        _in_gtk(lambda: self._open(question, deadline, said))

    def withdraw(self, reason: str) -> None:
        _in_gtk(self._shut)

    def tell(self, told: Told) -> None:
        _in_gtk(lambda: show_bubble(told))

    def _open(self, question: Question, deadline: float, said: Answer) -> None:
        self._shut()
        self._window = QuestionWindow(question, deadline, said)

    def _shut(self) -> None:
        if self._window is not None:
            self._window.close()
            self._window = None


def run(path: Path, timeout: float, signals: Sequence[signal.Signals]) -> None:
    """Ask in windows until one of the signals comes. Raises ``AgentError`` where there is no display, or no
    socket can be had."""
    if Gdk.Display.get_default() is None:
        raise AgentError("no display can be opened; set DISPLAY to one, or give --tty")
    # Never popped: what is drawn into a window that somebody has destroyed is an error of the display's, and
    # GTK ends the program for it, with all questions.
    Gdk.error_trap_push()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    for number in signals:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    with ThreadPoolExecutor(1) as executor:
        work = executor.submit(loop.run_until_complete, _serve(Desktop(loop), path, timeout, stop))
        work.add_done_callback(lambda _: _in_gtk(Gtk.main_quit))
        Gtk.main()
        work.result()
    loop.close()


async def _serve(desktop: Desktop, path: Path, timeout: float, stop: asyncio.Event) -> None:
    async with serving(desktop, path, timeout):
        _log.info("ready: %s", path)
        await stop.wait()


def _in_gtk(act: Callable[[], None]) -> None:
    """Have this done in GTK's thread, after all that was to be done there before."""

    def once() -> bool:
        act()
        return bool(GLib.SOURCE_REMOVE)

    GLib.idle_add(once, priority=GLib.PRIORITY_DEFAULT)
