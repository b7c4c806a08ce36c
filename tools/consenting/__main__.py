"""``tools/consents``: arguments in, a walk after the other, a summary or a finding out."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tools.consenting.walk import Report, walk

EXAMPLES = """examples:
  tools/consents --steps 20000 --seeds 10     what a release has to stand
  tools/consents --seed 7 --steps 500         one seed again
  tools/consents --json                       the figures as JSON

Exit status: 0 where every call ran on a yes of its own, 1 with a finding."""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="tools/consents",
        description="Make calls that are asked about, answer some, and change policy and qubes meanwhile. "
        "Every call that runs is held against what the user agreed to.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--steps", type=int, default=2_000, help="of each seed (default: %(default)d)")
    found.add_argument("--seeds", type=int, default=1, help="how many, from 1 on (default: %(default)d)")
    found.add_argument("--seed", type=int, help="this one alone")
    found.add_argument("--json", action="store_true", help="print the figures as JSON, and no progress")
    return found


def main() -> int:
    options = parser().parse_args()
    logging.disable()
    seeds = range(1, options.seeds + 1) if options.seed is None else (options.seed,)
    reports: list[Report] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="consents-") as folder:
            reports.append(asyncio.run(walk(Path(folder), seed, options.steps)))
        if sys.stderr.isatty() and not options.json:
            print(f"\rseed {seed} of {len(seeds)}", end="", file=sys.stderr, flush=True)
        if reports[-1].finding is not None:
            break
    last = reports[-1]
    figures = {
        "seeds": len(reports),
        "steps": sum(report.steps for report in reports),
        **dict(sorted(sum((report.counts for report in reports), start=Counter[str]()).items())),
        "findings": int(last.finding is not None),
    }
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        width = max(map(len, figures))
        print("\n".join(f"{name:{width}}  {value}" for name, value in figures.items()))
    if last.finding is None:
        return 0
    print(f"\nFOUND: {last.finding}\nafter", *last.script, sep="\n  ", file=sys.stderr)
    print(f"again: tools/consents --seed {last.seed} --steps {last.steps}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
