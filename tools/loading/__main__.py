"""``tools/load``: arguments in, figures out."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tools.loading.campaign import run
from tools.loading.house import FEWEST

EXAMPLES = """examples:
  tools/load --minutes 10         what a release has to stand
  tools/load --minutes 0.5        a look
  tools/load --json               the figures as JSON

Exit status: 0 where nobody was starved, nothing grew and no event was lost; 1 where something was."""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="tools/load",
        description="Load a daemon of its own: one caller that floods, payloads of 64 KiB, streams that are "
        "read slowly or never, some 200 connections. Steady callers and listeners beside them are held to "
        "what they had in a quiet while before.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--minutes", type=float, default=10.0, help="in all (default: %(default)g)")
    found.add_argument(
        "--qubes", type=int, default=1_000, help=f"of the system, {FEWEST} at least (default: %(default)d)"
    )
    found.add_argument("--json", action="store_true", help="print the figures as JSON, and no progress")
    return found


def main() -> int:
    options = parser().parse_args()
    if options.qubes < FEWEST:
        parser().error(f"--qubes: {FEWEST} at least, for there are so many callers and what they call about")

    def tell(what: str) -> None:
        if sys.stderr.isatty() and not options.json:
            print(f"{what} ...", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        report = asyncio.run(run(Path(folder) / "root", options.minutes * 60, options.qubes, tell))
    document = report.document()
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        width = max(map(len, document))
        print("\n".join(f"{name:{width}}  {value}" for name, value in document.items() if name != "faults"))
        print("\n".join(f"FAULT  {fault}" for fault in report.faults) or "no fault")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
