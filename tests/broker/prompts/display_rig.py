"""A display that nobody sees, the agent's windows on it, and a hand on mouse and keyboard (xdotool)."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.broker.prompts.agent_rig import LIMIT
from tests.broker.prompts.process_rig import MAIN, Call, environment

PYTHON = "/usr/bin/python3"
"""The one that has the system's GTK; ours of the checkout has only what pip brings."""

TITLE = "Policy question"
OK, CANCEL, FIRST_OF_TWO, NOTHING = (-45, -35), (-122, -35), (-150, -120), (-5, -5)
"""Where they are, seen from the window's lower right corner."""

_GTK = "import gi; gi.require_version('Gtk', '3.0'); from gi.repository import Gtk"


def need_windows() -> None:
    """Skip, by name, where the machine lacks something."""
    for program, package in (("Xvfb", "xvfb"), ("xdotool", "xdotool"), ("dbus-daemon", "dbus-daemon")):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: no window was looked at; apt-get install {package}")
    if subprocess.run([PYTHON, "-c", _GTK], capture_output=True, check=False).returncode:
        pytest.skip(
            f"no GTK for {PYTHON}: no window was looked at; apt-get install python3-gi gir1.2-gtk-3.0"
        )


@contextmanager
def display() -> Iterator[str]:
    """The name of a display of our own."""
    need_windows()
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x700x24", "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with open(read, encoding="ascii") as numbers:
            number = numbers.readline().strip()
        assert number, "Xvfb did not start"
        yield f":{number}"
    finally:
        server.terminate()
        server.wait(LIMIT)


@contextmanager
def notifications() -> Iterator[tuple[str, IO[str]]]:
    """A desktop that shows notifications: the address of its bus, and what it was told to show, one JSON list
    a line."""
    with ExitStack() as ends:
        bus = subprocess.Popen(
            ["dbus-daemon", "--session", "--nofork", "--print-address"], stdout=subprocess.PIPE, text=True
        )
        ends.enter_context(bus)
        ends.callback(bus.terminate)
        assert bus.stdout is not None
        address = bus.stdout.readline().strip()
        shows = subprocess.Popen(
            [PYTHON, "-m", "tests.broker.prompts.notification_probe"],
            env=environment(DBUS_SESSION_BUS_ADDRESS=address),
            stdout=subprocess.PIPE,
            text=True,
        )
        ends.enter_context(shows)
        ends.callback(shows.terminate)
        assert shows.stdout is not None
        assert shows.stdout.readline() == "[]\n"
        yield address, shows.stdout


class Window:
    """The window of the question that is shown, when it comes. It has no focus at first: there is no window
    manager, and what the server does by itself is to have the focus follow the mouse.

    Args:
        after: the window that has to go before.
    """

    def __init__(self, screen: str, after: Window | None = None) -> None:
        self._screen = screen
        self._id = ""
        deadline = time.monotonic() + LIMIT
        found: list[str] = []
        while not found or (after is not None and after._id in found):
            assert time.monotonic() < deadline, "no window came"
            found = self._xdotool("search", "--onlyvisible", "--name", f"^{TITLE}$").split()
        assert len(found) == 1, found
        self._id = found[0]
        self.unfocus()

    def focus(self) -> float:
        """Give it the focus; the time on the monotonic clock right before."""
        before = time.monotonic()
        self._xdotool("windowfocus", "--sync", self._id)
        return before

    def unfocus(self) -> None:
        with _xlib(self._screen) as (x, connection):
            x.XSetInputFocus(connection, 0, 0, 0)

    def press(self, key: str) -> None:
        self._xdotool("key", key)

    def click(self, place: tuple[int, int]) -> None:
        """Nothing where the window has gone."""
        lines = self._xdotool("getwindowgeometry", "--shell", self._id).splitlines()
        seen = {key: int(value) for key, value in (line.split("=") for line in lines)}
        if seen:
            right, bottom = seen["X"] + seen["WIDTH"], seen["Y"] + seen["HEIGHT"]
            self._xdotool("mousemove", str(right + place[0]), str(bottom + place[1]), "click", "1")

    def close(self) -> None:
        """As a window manager asks a window to close."""
        with _xlib(self._screen) as (x, connection):
            names = (
                x.XInternAtom(connection, name, False) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")
            )
            protocols, delete = names
            event = _ClientMessage(33, 0, True, connection, int(self._id), protocols, 32, delete)
            room = (ctypes.c_char * 192).from_buffer_copy(bytes(event).ljust(192, b"\0"))
            x.XSendEvent(connection, int(self._id), False, 0, room)

    def destroy(self) -> None:
        """As somebody does who asks nobody."""
        self._xdotool("windowclose", self._id)

    def _xdotool(self, *words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words],
            env=environment(DISPLAY=self._screen),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        # It fails where the window has just gone, or has not come.
        return done.stdout


class Desktop:
    """An agent on a display; ``log`` is what it has written. ``bus`` is the address of the desktop's other
    programs."""

    def __init__(self, screen: str, folder: Path, *options: str, bus: str = "unix:path=/none") -> None:
        self.screen = screen
        self.path = folder / "agent.sock"
        self._log = (folder / "log").open("w+")
        self.agent = subprocess.Popen(
            [PYTHON, "-m", MAIN, f"--socket-path={self.path}", *options],
            env=environment(
                DISPLAY=screen,
                NO_AT_BRIDGE="1",
                GTK_THEME="Adwaita",
                DBUS_SESSION_BUS_ADDRESS=bus,
            ),
            stdin=subprocess.DEVNULL,
            stderr=self._log,
        )
        self.says("ready: ")

    def ask(self, message: bytes) -> Call:
        return Call(self.path, message)

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def says(self, text: str) -> None:
        """Wait until it has written this."""
        deadline = time.monotonic() + LIMIT
        while text not in self.log():
            assert time.monotonic() < deadline, f"{text!r} never came: {self.log()}"
            assert self.agent.poll() is None or text in self.log(), self.log()
            time.sleep(0.01)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.agent.terminate()
        self.agent.wait(LIMIT)
        self._log.close()


@contextmanager
def desktop(screen: str, folder: Path, *options: str, bus: str = "unix:path=/none") -> Iterator[Desktop]:
    found = Desktop(screen, folder, *options, bus=bus)
    try:
        yield found
    finally:
        found.close()


class _ClientMessage(ctypes.Structure):
    """An event that holds one long; the type is 33."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long),
    )


_passed_over = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: 0)
"""Xlib's own handler of errors would end the process where a window has just gone."""


@contextmanager
def _xlib(screen: str) -> Iterator[tuple[ctypes.CDLL, ctypes.c_void_p]]:
    """What xdotool cannot do."""
    x = ctypes.CDLL(ctypes.util.find_library("X11"))
    x.XOpenDisplay.restype = ctypes.c_void_p
    x.XInternAtom.restype = ctypes.c_ulong
    x.XCloseDisplay.argtypes = (ctypes.c_void_p,)
    x.XInternAtom.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
    x.XSetInputFocus.argtypes = (ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_ulong)
    x.XSendEvent.argtypes = (ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p)
    x.XSetErrorHandler(_passed_over)
    connection = ctypes.c_void_p(x.XOpenDisplay(screen.encode()))
    assert connection.value
    try:
        yield x, connection
    finally:
        x.XCloseDisplay(connection)
