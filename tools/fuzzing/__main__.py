"""``tools/fuzz daemon``: arguments in, one campaign, a summary or a finding out."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import shlex
import signal
import sys
import tempfile
from pathlib import Path

from broker.limits import raise_descriptor_limit
from tools.fuzzing.campaign import DAEMON, Campaign, Finding, Plan, Report
from tools.fuzzing.subject import SubjectError

EXAMPLES = """examples:
  tools/fuzz daemon --seconds 60                 a minute, with a seed of its own, which it prints
  tools/fuzz daemon --seconds 3600 --json        an hour, with its figures as JSON
  tools/fuzz daemon --seed 7 --case 1234 --ground 3
                                                 one case again, as a finding names it
  tools/fuzz daemon --swap 0 --program 'python3 -m other.daemon'
                                                 another daemon, one policy all the time

Exit status: 0 without a finding, 1 with one, 2 where the daemon under test cannot be started."""


def main() -> int:
    plan, as_json = _arguments()
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        try:
            report = asyncio.run(_run(Campaign(plan, Path(folder)), quiet=as_json))
        except SubjectError as error:
            print(f"tools/fuzz: {error}", file=sys.stderr)
            return 2
    print(json.dumps(_figures(report), indent=1) if as_json else _summary(report))
    if report.finding is not None:
        print(_told(report.finding, plan), file=sys.stderr)
    return 0 if report.finding is None else 1


def _arguments() -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(
        prog="tools/fuzz",
        description="Send hostile bytes to a policy daemon of its own; hold every answer against the engine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subject", choices=("daemon",), help="what is fuzzed: qrexec-policy-daemon")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: %(default).0f)")
    parser.add_argument("--seed", type=int, help="what all that is sent follows from (default: by chance)")
    parser.add_argument(
        "--swap", type=float, default=3.0, help="seconds between edits of the policy, 0 for none (default: 3)"
    )
    parser.add_argument("--case", type=int, metavar="N", help="send only this case again")
    parser.add_argument(
        "--ground", type=int, default=0, metavar="N", help="the policy and qubes to begin with"
    )
    parser.add_argument(
        "--program",
        default=shlex.join(DAEMON),
        help="the daemon's command, without its options (default: ours)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, and no progress")
    asked = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if asked.seed is None else asked.seed
    command = shlex.split(asked.program)
    return Plan(seed, asked.seconds, asked.swap, asked.case, asked.ground, command), asked.json


async def _run(campaign: Campaign, quiet: bool) -> Report:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, campaign.stop)
    if quiet or not sys.stderr.isatty():
        return await campaign.run()
    progress = asyncio.create_task(_show(campaign.report))
    try:
        return await campaign.run()
    finally:
        progress.cancel()
        print(file=sys.stderr)


async def _show(report: Report) -> None:
    """A line that is renewed each second."""
    began, before = asyncio.get_running_loop().time(), 0
    while True:
        await asyncio.sleep(1)
        passed = asyncio.get_running_loop().time() - began
        findings = 0 if report.finding is None else 1
        print(
            f"\r{passed:6.0f} s  {report.sent - before:6} /s  {report.sent:10} cases  {findings} findings  "
            f"{report.descriptors_peak:5} descriptors at most  {report.memory_peak // 1024:5} MiB at most ",
            end="",
            file=sys.stderr,
            flush=True,
        )
        before = report.sent


def _figures(report: Report) -> dict[str, object]:
    finding = report.finding
    return {
        "seed": report.seed,
        "seconds": round(report.seconds, 1),
        "cases": report.sent,
        "kinds": dict(sorted(report.cases.items())),
        "outcomes": dict(sorted(report.outcomes.items())),
        "edits": report.grounds,
        "fetches": report.fetches,
        "questions": report.questions,
        "notes": report.notes,
        "descriptors": {"quiet": report.descriptors, "peak": report.descriptors_peak},
        "memory_kib": {"begin": report.memory, "peak": report.memory_peak, "end": report.memory_end},
        "finding": None if finding is None else {"what": finding.what, "case": finding.number},
    }


def _summary(report: Report) -> str:
    rate = report.sent / report.seconds if report.seconds else 0
    counts = [f"  {name:22}{number:10}" for name, number in sorted((report.cases + report.outcomes).items())]
    return "\n".join(
        (
            f"seed {report.seed}: {report.sent} cases in {report.seconds:.0f} s, {rate:.0f} a second",
            *counts,
            f"  the policy edited {report.grounds} times, the qubes fetched {report.fetches} times, "
            f"{report.questions} questions and {report.notes} notes to the user",
            f"  descriptors: {report.descriptors} in quiet, {report.descriptors_peak} at most",
            f"  memory: {report.memory} KiB at the begin, {report.memory_peak} KiB at most, "
            f"{report.memory_end} KiB at the end",
            "  no finding" if report.finding is None else "  1 finding",
        )
    )


def _told(finding: Finding, plan: Plan) -> str:
    """A finding with all it takes to look at it again."""
    lines = [f"FINDING with seed {plan.seed}: {finding.what}"]
    if finding.case is not None:
        it = finding.case
        lines.append(
            f"  {it.kind} number {finding.number} to {it.socket}, then {it.ending.value}, in pieces:"
        )
        lines += [f"    {piece!r}" for piece in it.pieces]
        again = f"tools/fuzz daemon --seed {plan.seed} --case {finding.number}"
        lines += [f"  again: {again} --ground {number}" for number in finding.grounds or (plan.ground,)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
