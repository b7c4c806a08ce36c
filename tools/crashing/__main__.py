"""``tools/crash``: arguments in, one campaign, a summary or a finding out."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from tools.crashing.campaign import WRITERS, Campaign, Report

EXAMPLES = """examples:
  tools/crash --kills 300            what a release has to stand
  tools/crash --kills 20 --seed 7    the writes of a seed again; where the kills fall is up to the clock
  tools/crash --kills 300 --json     its figures as JSON

Exit status: 0 without a finding, 1 with one."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/crash",
        description="Kill a daemon amid writes, start it again, and hold what is there against what it said.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=300, help="how often (default: %(default)d)")
    parser.add_argument("--writers", type=int, default=WRITERS, help="connections (default: %(default)d)")
    parser.add_argument("--seed", type=int, help="what is written follows from it (default: by chance)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, and no progress")
    asked = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if asked.seed is None else asked.seed
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        campaign = Campaign(seed, Path(folder), asked.writers)
        quiet = asked.json or not sys.stderr.isatty()
        report = campaign.run(asked.kills, (lambda report: None) if quiet else _show)
    figures = {field.name: getattr(report, field.name) for field in fields(report)}
    print(json.dumps(figures, indent=1) if asked.json else _summary(report))
    if report.finding is not None:
        print(f"tools/crash: seed {seed}: {report.finding}", file=sys.stderr)
    return 0 if report.finding is None else 1


def _show(report: Report) -> None:
    calls = report.acknowledged.total()
    print(f"\r{report.kills} kills, {calls} calls acknowledged", end="", file=sys.stderr, flush=True)


def _summary(report: Report) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.acknowledged.items()))
    refused = ", ".join(f"{count} {kind}" for kind, count in sorted(report.refused.items())) or "none"
    return (
        f"seed {report.seed}: {report.kills} kills ({report.kills_amid_start} amid a start) "
        f"in {report.seconds:.0f} s\n"
        f"acknowledged: {report.acknowledged.total()} calls: {kinds}\n"
        f"refused: {refused}\n"
        f"unanswered: {report.unanswered.total()} calls\n"
        f"read back: {report.checked} values, of which {report.kept} nobody could be sure of\n"
        f"{'nothing found' if report.finding is None else 'FOUND: ' + report.finding}"
    )


sys.exit(main())
