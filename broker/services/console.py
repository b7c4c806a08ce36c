"""``admin.vm.Console``: the program that the qrexec daemon runs in dom0 for a qube that wants the console of
another one (``spec/admin-calls.md`` 2.7).

It asks qubesd, in the name of the calling qube, for the terminal, and joins its own standard input and output
to it: what the caller gets then are the bytes of the console. One caller at a time has a console.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import stat
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from broker.client import connect, received, send_all
from broker.places import QUBESD_SOCKET, RUN
from broker.services.called import SOURCE, ServiceParser, called
from broker.wire import Failure, FramingError, encode_call, encode_error, parse_reply
from qubesd.api.call import Call
from qubesd.errors import QubesError

SERVICE = "admin.vm.Console"

TAKEN = 200
"""The exit status where somebody else has the console."""

_PATIENCE = 60.0
"""Seconds that qubesd may take for its answer."""
_CHUNK = 4096
"""Bytes taken at once; a pipe or a socket that can be written to takes as many without waiting."""
_AFTERMATH = 0.5
"""Seconds for which the console is still read when standard input has ended."""


_DESCRIPTION = """\
Join a calling qube to the console of another one: the service admin.vm.Console.

The qrexec daemon runs this program in dom0. It asks qubesd, in the name of the
calling qube, for the terminal of the called one, and joins its own standard
input and output to it. One caller at a time has a console.
"""
_EPILOG = """\
exit status:
  0    either side has ended it
  1    there is no console; the reply that says why is on standard output
  200  somebody else has it

environment:
  QREXEC_REMOTE_DOMAIN
      the calling qube
  QREXEC_REQUESTED_TARGET_TYPE, QREXEC_REQUESTED_TARGET
      the qube whose console it is

files:
  /etc/qubes-rpc/admin.vm.Console
      the link by which the qrexec daemon finds it
  /run/qubes/NAME.terminal.lock
      held while somebody has the console of NAME

examples:
  qrexec-client-vm work admin.vm.Console    in a qube that the policy allows it

see also:
  qubesd(8), qubes-volume-import(8)
"""


class ConsoleTaken(Exception):
    """Somebody else has it."""


class Refused(Exception):
    """``reply`` is qubesd's own."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


def main(arguments: Sequence[str] | None = None) -> int:
    """Join the console until either side ends.

    Returns 0 then; 1 where there is none, with the reply that says so on standard output; ``TAKEN``.
    """
    try:
        run(sys.argv[1:] if arguments is None else arguments, os.environ)
    except ConsoleTaken:
        return TAKEN
    except Refused as error:
        reply = error.reply
    except QubesError as error:
        reply = encode_error(error)
    except OSError as error:
        reply = encode_error(QubesError(f"the console cannot be had: {error.strerror}"))
    except FramingError:
        reply = encode_error(QubesError("the console cannot be had: qubesd gave no answer"))
    else:
        return 0
    sys.stdout.buffer.write(reply)
    sys.stdout.buffer.flush()
    return 1


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Ask for the terminal, and join it.

    Raises:
        Refused: qubesd answers with an error.
        ConsoleTaken: somebody else has it.
        QubesError: this is no call as the qrexec daemon passes it on.
        OSError, FramingError: qubesd or the terminal cannot be reached or understood.
    """
    options = parser(SOURCE in environment).parse_args(arguments)
    source, target = called(environment)
    place = _ask(options.qubesd_socket_path, Call(SERVICE, options.argument, source, target, b""))
    with _opened(options.run_dir / f"{target}.terminal.lock", place) as terminal:
        join(sys.stdin.fileno(), sys.stdout.fileno(), terminal)


def parser(for_a_qube: bool = False) -> argparse.ArgumentParser:
    """The command line, ``for_a_qube`` as of ``ServiceParser``."""
    parser = ServiceParser("qubes-console", _DESCRIPTION, _EPILOG, for_a_qube)
    parser.add_argument(
        "argument",
        nargs="?",
        default="",
        metavar="ARGUMENT",
        help="the argument of the service; qubesd refuses any",
    )
    parser.add_argument(
        "--qubesd-socket-path",
        type=Path,
        default=Path(QUBESD_SOCKET),
        metavar="PATH",
        help="the socket of qubesd (default: %(default)s)",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path(RUN),
        metavar="DIR",
        help="where the lock of each console is (default: %(default)s)",
    )
    return parser


def join(stdin: int, stdout: int, terminal: int) -> None:
    """Carry bytes both ways until the terminal or standard output ends, or shortly after standard input did.

    Args:
        terminal: a descriptor that does not block.
    """
    typed = shown = b""
    end: float | None = None
    while end is None or time.monotonic() < end:
        ready = _wait(
            {
                stdin: select.POLLIN if end is None and not typed else None,
                stdout: select.POLLOUT if shown else 0,
                terminal: (select.POLLOUT if typed else 0) | (0 if shown else select.POLLIN) or None,
            },
            end,
        )
        try:
            if ready.get(stdout, 0) & ~select.POLLOUT:
                return
            if stdout in ready:
                shown = shown[os.write(stdout, shown) :]
            if ready.get(terminal, 0) & select.POLLOUT:
                typed = typed[os.write(terminal, typed) :]
            elif terminal in ready:
                data = os.read(terminal, _CHUNK)
                if not data:
                    return
                shown += data
            if stdin in ready:
                typed = os.read(stdin, _CHUNK)
                if not typed:
                    end = time.monotonic() + _AFTERMATH
        except BlockingIOError:
            continue  # the terminal had less room than it said
        except OSError:
            return  # hung up


def _wait(wanted: Mapping[int, int | None], end: float | None) -> dict[int, int]:
    """What has come of it, until ``end``. What is wanted for 0 is told when it hangs up, for ``None`` not."""
    poll = select.poll()
    for descriptor, events in wanted.items():
        if events is not None:
            poll.register(descriptor, events)
    return dict(poll.poll(None if end is None else max(0.0, end - time.monotonic()) * 1000))


def _ask(socket: Path, call: Call) -> Path:
    with closing(connect(socket, _PATIENCE)) as connection:
        send_all(connection, encode_call(call))
        reply = b"".join(received(connection))
    content = parse_reply(reply)
    if isinstance(content, Failure):
        raise Refused(reply)
    return Path(os.fsdecode(content))


@contextmanager
def _opened(lock: Path, terminal: Path) -> Iterator[int]:
    """The terminal, which nobody else has meanwhile."""
    held = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
    try:
        _hold(held)
        opened = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISCHR(os.fstat(opened).st_mode):
                raise QubesError("what qubesd names is no terminal")
            # The lock bears the name that was asked for, and a qube can be asked for by its uuid too.
            _hold(opened)
            tty.setraw(opened, termios.TCSANOW)
            yield opened
        finally:
            os.close(opened)
    finally:
        os.close(held)


def _hold(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConsoleTaken from None


if __name__ == "__main__":
    sys.exit(main())
