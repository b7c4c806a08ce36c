"""``tools/interference``: arguments in, a seed after the other, a summary or a difference out."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from qubesd.api.table import METHODS
from tools.interfering.campaign import Campaign, DaemonError, Difference, Report
from tools.interfering.rules import RULES

EXAMPLES = """examples:
  tools/interference --calls 10000 --seeds 20     what a release has to stand
  tools/interference --seed 7 --calls 2000        one seed again
  tools/interference --seeds 3 --json             the figures as JSON

Exit status: 0 without a difference, 1 with one, 2 where a daemon breaks off."""


_CONTEXT = 200
"""Bytes that are shown before those that differ."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/interference",
        description="Run two daemons that differ in what an operator may not see; compare what it is told.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calls", type=int, default=1_000, help="of each seed (default: %(default)d)")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 1 on (default: %(default)d)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument(
        "--rules", choices=sorted(RULES), default="dialect", help="of the operators (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, and no progress")
    asked = parser.parse_args()
    seeds = range(1, asked.seeds + 1) if asked.seed is None else (asked.seed,)
    quiet = asked.json or not sys.stderr.isatty()
    reports: list[Report] = []
    with tempfile.TemporaryDirectory(prefix="interference-") as folder:
        try:
            campaign = Campaign(Path(folder), rules=RULES[asked.rules])
            for seed in seeds:
                reports.append(campaign.run(seed, asked.calls, (lambda report: None) if quiet else _show))
                if reports[-1].difference is not None:
                    break
        except DaemonError as error:
            print(f"tools/interference: seed {seed}: a daemon broke off:\n{error}", file=sys.stderr)
            return 2
    print(json.dumps(_figures(reports), indent=1) if asked.json else _summary(reports))
    last = reports[-1]
    if last.difference is not None:
        print(f"\n{_told(last.difference)}", file=sys.stderr)
        print(
            f"again: tools/interference --rules {asked.rules} --seed {last.seed} --calls {last.calls + 1}",
            file=sys.stderr,
        )
    return 0 if last.difference is None else 1


def _show(report: Report) -> None:
    print(f"\rseed {report.seed}: {report.calls} calls", end="", file=sys.stderr, flush=True)


def _figures(reports: list[Report]) -> dict[str, object]:
    answers = sum((report.answers for report in reports), start=type(reports[0].answers)())
    served = set().union(*(report.served for report in reports))
    return {
        "seeds": len(reports),
        "calls": sum(report.calls for report in reports),
        "seconds": round(sum(report.seconds for report in reports), 1),
        "answers": dict(sorted(answers.items())),
        "methods": len(METHODS),
        "methods_served": len(served),
        "never_served": sorted(METHODS.keys() - served),
        "concealed": sum(report.concealed for report in reports),
        "concealed_done": sum(report.concealed_done for report in reports),
        "events": sum(report.events for report in reports),
        "differences": sum(report.difference is not None for report in reports),
    }


def _summary(reports: list[Report]) -> str:
    figures = _figures(reports)
    del figures["never_served"]
    width = max(map(len, figures))
    return "\n".join(f"{name.replace('_', ' '):{width}}  {value}" for name, value in figures.items())


def _told(difference: Difference) -> str:
    steps = [f"  {step}" for step in difference.script]
    pairs = zip(difference.one, difference.other, strict=False)
    same = next((at for at, (one, other) in enumerate(pairs) if one != other), 0)
    start = max(0, same - _CONTEXT)
    return "\n".join(
        (
            f"DIFFERENCE in {difference.what}",
            f"  without the hidden: {difference.one[start:]!r}",
            f"  with it:            {difference.other[start:]!r}",
            f"after {len(steps)} steps:",
            *steps,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
