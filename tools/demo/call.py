"""``tools/call``: one call to the demo's daemon, as dom0 or as one of its qubes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from broker import client
from broker.wire import FramingError
from qubesd.config import load
from tools.demo.callers import Ending, NoSuchCaller, attempt, socket_of
from tools.demo.daemon import ROOT

EXIT_STATUS = {Ending.DONE: 0, Ending.DENIED: 126, Ending.FAILED: 1}
"""126 is what a stock qrexec client gives for a refused call."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/call", description="Make one Admin API call to the daemon that tools/run started."
    )
    parser.add_argument("service", help="such as admin.vm.List or admin.vm.property.Get+label")
    parser.add_argument("target", nargs="?", default="dom0", help="the qube it is about (default: dom0)")
    parser.add_argument("payload", nargs="?", default="", help="what the call carries, such as a new value")
    parser.add_argument("--as", dest="caller", default="dom0", help="the qube that calls (default: dom0)")
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="the daemon's directory (default: $QUBESD_ROOT or ./var)"
    )
    asked = parser.parse_args()
    service, _, argument = asked.service.partition("+")
    try:
        path = socket_of(load(asked.root), asked.caller)
        outcome = attempt(path, service, asked.target, argument, asked.payload.encode())
    except (NoSuchCaller, FramingError, client.NoReplyError, OSError) as error:
        print(f"tools/call: {error}", file=sys.stderr)
        return 1
    stream = sys.stdout if outcome.ending is Ending.DONE else sys.stderr
    print(outcome.text, end="" if outcome.text.endswith("\n") or not outcome.text else "\n", file=stream)
    return EXIT_STATUS[outcome.ending]


if __name__ == "__main__":
    sys.exit(main())
