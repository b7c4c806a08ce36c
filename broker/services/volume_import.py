"""``admin.vm.volume.Import`` and ``ImportWithSize``: one program under two names, which the qrexec daemon
runs in dom0 for a qube, with the new content of a volume on its standard input (``spec/admin-calls.md`` 6.7).

It asks qubesd over the internal socket, in the name of the calling qube, where to put the data, puts them
there, and passes on what qubesd says at the end. qubesd judges the qube again for the service of this name.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from broker.client import connect, received, send_all
from broker.places import QUBESD_INTERNAL_SOCKET
from broker.services.called import SOURCE, ServiceParser, called
from broker.wire import Failure, FramingError, encode_call, encode_error, parse_reply
from qubesd.api.call import Call
from qubesd.errors import ProtocolError, QubesError, StorageError
from qubesd.storage.receiving import receive

WITH_SIZE = "admin.vm.volume.ImportWithSize"

_LONGEST_SIZE = 21
"""Bytes of the line with the size, its end included."""
_PATIENCE = 600.0
"""Seconds that qubesd may take for one answer: a commit may copy."""


_DESCRIPTION = """\
Put what a calling qube sends into a volume of another one.

It is the services admin.vm.volume.Import and admin.vm.volume.ImportWithSize,
which the qrexec daemon runs in dom0 with the new content on standard input. It
asks qubesd, in the name of the calling qube, where to put the data, puts them
there, and passes on what qubesd says at the end.
"""
_EPILOG = """\
exit status:
  0  qubesd has taken the data
  1  it has not; its reply, on standard output, says why

environment:
  QREXEC_REMOTE_DOMAIN
      the calling qube
  QREXEC_REQUESTED_TARGET_TYPE, QREXEC_REQUESTED_TARGET
      the qube that has the volume

files:
  /etc/qubes-rpc/admin.vm.volume.Import, /etc/qubes-rpc/admin.vm.volume.ImportWithSize
      the links by which the qrexec daemon finds it

examples:
  qrexec-client-vm work admin.vm.volume.Import+private < image
  (stat -c %s image; cat image) |
      qrexec-client-vm work admin.vm.volume.ImportWithSize+private

see also:
  qubesd(8), qubes-console(8)
"""


class Places(NamedTuple):
    """Who imports into which qube's volume, and where qubesd is."""

    source: str
    target: str
    volume: str
    socket: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Import from standard input; 0 where qubesd took the data, else 1, with its reply on standard output."""
    try:
        reply = _carry_out(sys.argv[1:] if arguments is None else arguments)
    except (QubesError, OSError, FramingError) as error:
        known = error if isinstance(error, QubesError) else StorageError(f"the import failed: {error}")
        reply = encode_error(known)
    sys.stdout.buffer.write(reply)
    sys.stdout.buffer.flush()
    return 0 if reply.startswith(b"0\0") else 1


def _carry_out(arguments: Sequence[str]) -> bytes:
    options = parser(SOURCE in os.environ).parse_args(arguments)
    places = Places(*called(os.environ), options.volume, options.qubesd_internal_socket_path)
    with_size = options.with_size or Path(sys.argv[0]).name == WITH_SIZE
    return run(places, sys.stdin.fileno(), with_size)


def parser(for_a_qube: bool = False) -> argparse.ArgumentParser:
    """The command line, ``for_a_qube`` as of ``ServiceParser``."""
    parser = ServiceParser("qubes-volume-import", _DESCRIPTION, _EPILOG, for_a_qube)
    parser.add_argument(
        "volume", metavar="VOLUME", help="the volume, such as private: the service's argument"
    )
    parser.add_argument(
        "--with-size",
        action="store_true",
        help=f"the data begin with a line that has the new size in bytes; under the name {WITH_SIZE} always",
    )
    parser.add_argument(
        "--qubesd-internal-socket-path",
        type=Path,
        default=Path(QUBESD_INTERNAL_SOCKET),
        metavar="PATH",
        help="the internal socket of qubesd (default: %(default)s)",
    )
    return parser


def run(places: Places, stream: int, with_size: bool) -> bytes:
    """Carry out the import; qubesd's own words as the reply.

    Raises:
        ProtocolError: there is no size at the beginning of the stream.
        OSError, FramingError: qubesd cannot be reached or understood.
    """
    size = _size_line(stream) if with_size else b""
    return imported(places, size, lambda target, count: receive(stream, target, count))


def imported(places: Places, size: bytes, fill: Callable[[Path, int], None]) -> bytes:
    """What qubesd says of the import of what ``fill`` writes to the path and of the size that it is given.

    Args:
        size: the new size in digits; empty for that of the volume.
        fill: raises ``StorageError`` where nothing is to be imported.

    Raises:
        OSError, FramingError: qubesd cannot be reached or understood.
    """
    begun = _ask(places, "internal.vm.volume.ImportBegin", size)
    where = parse_reply(begun)
    if isinstance(where, Failure):
        return begun
    count, _, path = where.decode("utf-8").partition(" ")
    status = b"fail\nthe import was broken off"
    try:
        fill(Path(path), int(count))
        status = b"ok"
    except StorageError as error:
        status = f"fail\n{error}".encode("ascii", "replace")
    finally:
        ended = _ask(places, "internal.vm.volume.ImportEnd", status)
    return ended


def _size_line(stream: int) -> bytes:
    """The digits of the first line, read byte by byte, for what follows is data."""
    untrusted_line = b""
    while len(untrusted_line) < _LONGEST_SIZE:
        untrusted_byte = os.read(stream, 1)
        if untrusted_byte == b"\n" and untrusted_line:
            return untrusted_line
        if not untrusted_byte.isdigit():
            break
        untrusted_line += untrusted_byte
    raise ProtocolError("the data do not begin with a line that has their size in bytes")


def _ask(places: Places, service: str, payload: bytes) -> bytes:
    """The whole reply, as it comes."""
    call = Call(service, places.volume, places.source, places.target, payload)
    with closing(connect(places.socket, _PATIENCE)) as connection:
        send_all(connection, encode_call(call))
        reply = b"".join(received(connection))
    parse_reply(reply)
    return reply


if __name__ == "__main__":
    sys.exit(main())
