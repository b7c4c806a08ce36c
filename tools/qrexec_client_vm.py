"""``qrexec-client-vm``, as the stock tools inside a qube use it, over the qube's own socket of the broker.

Both directions run at the same time and nothing is kept back, so that event streams flow; only the first
bytes of the answer are held until they tell a denial by policy (exit status 126) from an answer.
"""

from __future__ import annotations

import getopt
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from broker.client import connect
from broker.wire import FramingError, encode_call, encode_refusal
from qubesd.api.call import Call

USAGE = """usage: qrexec-client-vm [OPTIONS] TARGET SERVICE[+ARGUMENT] [LOCAL_PROGRAM [ARGS...]]

  --agent-socket=PATH                   the socket of this qube (default: $QREXEC_AGENT_SOCKET,
                                        else /run/qubes/qrexec-agent.sock)
  -p, --prefix-data=DATA                send DATA before standard input
  -t, --filter-escape-chars-stdout      replace control and non-ASCII characters in the output;
                                        the default where it is a terminal
  -T, --filter-escape-chars-stderr      the same for error messages
  --no-filter-escape-chars-stdout, --no-filter-escape-chars-stderr
  --use-stdin-socket                    descriptor 0 is a stream socket, used for both directions
  --buffer-size=N                       bytes that are moved at a time
  -s, --source-qube=QUBE                call for another qube (not served over this socket)
  -h, --help                            this text"""

DEFAULT_SOCKET = "/run/qubes/qrexec-agent.sock"

SERVED, UNREACHABLE, WRONG_USAGE, FAILED, REFUSED, NO_SERVICE = 0, 1, 2, 125, 126, 127

_MARK = encode_refusal(0).rsplit(b" ", 1)[0]
"""How the bytes of every denial by policy begin."""

_NO_METHOD = b"2\0ProtocolError\0\0no such method"

_SHOWN = bytes(code if 0x20 <= code < 0x7F or code in b"\t\n" else ord("_") for code in range(256))


class UsageError(Exception):
    """The command line cannot be understood."""


@dataclass(slots=True)
class Options:
    """A command line. ``filter_output`` is ``None`` where the stream decides: a terminal is protected."""

    target: str = ""
    service: str = ""
    argument: str = ""
    program: Sequence[str] = ()
    agent_socket: str = ""
    prefix: bytes = b""
    filter_output: bool | None = None
    stdin_socket: bool = False
    buffer_size: int = 65_536
    source: str = ""


def parse(arguments: Sequence[str]) -> Options | None:
    """Read a command line; ``None`` if it asks for help. Options end at the first word that is none.

    Raises:
        UsageError: what it says.
        ValueError: a buffer size that is none.
    """
    long_options = [
        "help", "agent-socket=", "prefix-data=", "buffer-size=", "use-stdin-socket", "source-qube=",
        "filter-escape-chars-stdout", "filter-escape-chars-stderr",
        "no-filter-escape-chars-stdout", "no-filter-escape-chars-stderr",
    ]  # fmt: skip
    try:
        found, words = getopt.getopt(list(arguments), "htTp:s:", long_options)
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from error
    options = Options(agent_socket=os.environ.get("QREXEC_AGENT_SOCKET", DEFAULT_SOCKET))
    for option, value in found:
        match option:
            case "-h" | "--help":
                return None
            case "--agent-socket":
                options.agent_socket = value
            case "-p" | "--prefix-data":
                if options.prefix:
                    raise UsageError("prefix data can be given once")
                options.prefix = os.fsencode(value)
            case "--buffer-size":
                options.buffer_size = int(value)
                if not 0 < options.buffer_size <= 16 * 1024 * 1024:
                    raise ValueError(value)
            case "-s" | "--source-qube":
                options.source = value
            case "--use-stdin-socket":
                options.stdin_socket = True
            case "-t" | "--filter-escape-chars-stdout":
                options.filter_output = True
            case "--no-filter-escape-chars-stdout":
                options.filter_output = False
            case _:
                # About the service's standard error, which a service on a socket has none of.
                pass
    if len(words) < 2:
        raise UsageError("a target and a service are needed")
    target, method, *options.program = words
    if options.program and options.stdin_socket:
        raise UsageError("--use-stdin-socket goes with no local program")
    target = "@" + target[1:] if target.startswith("$") else target
    options.target = {"": "@default", "@adminvm": "dom0"}.get(target, target)
    options.service, _, options.argument = method.partition("+")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the call; returns the exit status."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
    except UsageError as error:
        return _fail(WRONG_USAGE, f"{error}\n{USAGE}")
    except ValueError as error:
        return _fail(UNREACHABLE, f"bad buffer size: {error}")
    if options is None:
        print(USAGE)
        return SERVED
    if options.source:
        return _fail(FAILED, "calls for another qube are not served over this socket")
    call = Call(options.service, options.argument, "unknown", options.target, options.prefix)
    try:
        request = encode_call(call)
    except FramingError as error:
        return _fail(WRONG_USAGE, str(error))
    try:
        server = connect(options.agent_socket)
    except OSError as error:
        return _fail(UNREACHABLE, f"{options.agent_socket}: {error.strerror}")
    with server:
        try:
            return _relay(server, request, options)
        except BrokenPipeError:
            # Whoever read the output is gone, and there is nobody left to tell.
            return FAILED


def _relay(server: socket.socket, request: bytes, options: Options) -> int:
    """Connect the call's two directions to where the command line says, until the answer ends."""
    source, sink = 0, 0 if options.stdin_socket else 1
    program: subprocess.Popen[bytes] | None = None
    if options.program:
        try:
            program = _start(options.program)
        except OSError as error:
            return _fail(FAILED, f"{options.program[0]}: {error.strerror}")
        assert program.stdin is not None
        assert program.stdout is not None
        source, sink = program.stdout.fileno(), program.stdin.fileno()
    sender = threading.Thread(target=_send, args=(server, request, source, options.buffer_size), daemon=True)
    sender.start()
    filtered = options.filter_output
    if filtered is None:
        filtered = program is None and os.isatty(sink)
    status = _receive(server, _writer(sink, filtered), sink, options)
    if program is not None:
        assert program.stdin is not None
        program.stdin.close()
        if status != SERVED:
            program.terminate()
        program.wait()
    return status


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the local program, with this command's own input and output as ``SAVED_FD_0`` and ``_1``."""
    saved = [os.dup(0), os.dup(1)]
    environment = os.environ | {f"SAVED_FD_{number}": str(fd) for number, fd in enumerate(saved)}
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=saved, env=environment
        )
    finally:
        for descriptor in saved:
            os.close(descriptor)


def _send(server: socket.socket, request: bytes, source: int, size: int) -> None:
    """Send the request and all input. A server that takes no more may have answered all the same."""
    with suppress(OSError):
        server.sendall(request)
        while data := os.read(source, size):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)


def _receive(server: socket.socket, write: Callable[[bytes], None], sink: int, options: Options) -> int:
    """Pass the answer on as it comes."""
    poll = select.poll()
    poll.register(server, select.POLLIN)
    # Asked for nothing, the kernel still tells when nobody reads the output any more.
    poll.register(sink, 0)
    held: bytes | None = b""
    while True:
        events = dict(poll.poll())
        if sink in events and server.fileno() not in events:
            return FAILED
        try:
            untrusted_data = server.recv(options.buffer_size)
        except ConnectionResetError:
            untrusted_data = b""
        if held is None:
            if not untrusted_data:
                return SERVED
            write(untrusted_data)
            continue
        held += untrusted_data
        if untrusted_data and any(mark.startswith(held[: len(mark)]) for mark in (_MARK, _NO_METHOD)):
            continue
        if held.startswith(_MARK):
            return _fail(REFUSED, "Request refused")
        if held.startswith(_NO_METHOD) and not options.service.startswith("admin."):
            return _fail(NO_SERVICE, f"no service {options.service!r}")
        if held:
            write(held)
        if not untrusted_data:
            return SERVED
        held = None


def _writer(sink: int, filtered: bool) -> Callable[[bytes], None]:
    def write(untrusted_data: bytes) -> None:
        left = memoryview(untrusted_data.translate(_SHOWN) if filtered else untrusted_data)
        while left:
            left = left[os.write(sink, left) :]

    return write


def _fail(status: int, message: str) -> int:
    print(f"qrexec-client-vm: {message}" if status != REFUSED else message, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
