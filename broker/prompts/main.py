"""``qrexec-policy-agent``: asks the user where the policy says ``ask``, and tells them what is to be told."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from broker.prompts.desk import TIMEOUT
from broker.prompts.front import PAUSE
from broker.prompts.serving import AgentError, serving
from broker.prompts.terminal import Terminal, unechoed

SOCKET = Path("/var/run/qubes/policy-agent.sock")

_LONGEST = 600.0
"""Seconds; a policy daemon of ours waits no longer."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_DESCRIPTION = """\
Ask the user where the policy says ask, and tell them what is to be told.

It runs in the qube that has the screen (dom0, or a GUI qube) as the user who
sits there. The policy daemon reaches it by the services policy.Ask and
policy.Notify, which lead to its socket, and qubesd asks by device-agent.GUI to
which qube a device may go. Questions are put one after the other. What is not
answered in time, and what finds too many questions waiting, is denied.
"""
_EPILOG = """\
exit status:
  0  a signal has ended it or, on a terminal, Ctrl-C
  1  it cannot run; standard error says why
  2  the command line is wrong

environment:
  DISPLAY
      where the windows are

files:
  /var/run/qubes/policy-agent.sock
      the socket
  /etc/qubes-rpc/policy.Ask, policy.Notify and device-agent.GUI beside it
      the services, which are links to the socket

examples:
  qrexec-policy-agent          ask in windows
  qrexec-policy-agent --tty    ask on this terminal
  qrexec-policy-agent --tty --timeout 30
      and deny what is not answered in half a minute

see also:
  qrexec-policy-daemon(8), qubesd(8), qubes-policy(1)
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qrexec-policy-agent",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--socket-path",
        type=Path,
        default=SOCKET,
        metavar="PATH",
        help="the socket that the services lead to (default: %(default)s)",
    )
    parser.add_argument(
        "--tty", action="store_true", help="ask on the terminal that this runs in, rather than in windows"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"how long a question is shown; then it is denied (default: {TIMEOUT:.0f})",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Exit status 0: ended by a signal or, on a terminal, by Ctrl-C; 1: it cannot run, with a message."""
    options = parser().parse_args(arguments)
    try:
        if options.tty:
            _ask_on_terminal(options)
        else:
            _ask_on_display(options)
    except AgentError as error:
        sys.exit(f"qrexec-policy-agent: {error}")
    sys.exit(0)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not PAUSE < seconds <= _LONGEST:
        expected = f"expected seconds, more than {PAUSE:.0f} and at most {_LONGEST:.0f}"
        raise argparse.ArgumentTypeError(f"{expected}, found {text!r}")
    return seconds


def _ask_on_display(options: argparse.Namespace) -> None:
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        # Only here: a terminal needs neither the library nor the time that it takes to load.
        from broker.prompts.desktop import run
    except (ImportError, ValueError) as error:
        raise AgentError(
            f"no windows here: {error}; install python3-gi and gir1.2-gtk-3.0, or give --tty"
        ) from None
    run(options.socket_path, options.timeout, _SIGNALS)


def _ask_on_terminal(options: argparse.Namespace) -> None:
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise AgentError("--tty: this is no terminal; run it in one, or without --tty on a display")
    try:
        with unechoed(sys.stdin.fileno()):
            asyncio.run(_serve_on_terminal(options))
    except termios.error as error:
        raise AgentError(f"--tty: the terminal cannot be used: {error.args[-1]}; run it in another") from None


async def _serve_on_terminal(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    terminal = Terminal(sys.stdin.fileno(), sys.stdout, stop.set)
    lines = _Lines(terminal)
    logging.getLogger().addHandler(lines)
    try:
        async with serving(terminal, options.socket_path, options.timeout):
            terminal.say(f"Questions for {options.socket_path} are asked here. Ctrl-C ends this.")
            await stop.wait()
    finally:
        logging.getLogger().removeHandler(lines)
        terminal.close()


class _Lines(logging.Handler):
    """What is logged, on the terminal that also has the questions."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.say(f"{record.levelname}: {record.getMessage()}")


if __name__ == "__main__":
    main()
