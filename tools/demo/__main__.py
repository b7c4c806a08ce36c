"""``tools/run``: start the daemon, load the demo system where there is none, show the tour, stay or end."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from broker import client
from broker.colour import Colours
from qubesd.config import ConfigError, load
from tools.demo import system
from tools.demo.callers import NoSuchCaller
from tools.demo.daemon import ROOT, DaemonError, lay_out_policy, serving
from tools.demo.tour import Tour

NEXT = """
What to type next, in another terminal:
  tools/call --as alice admin.vm.List                       what alice sees
  tools/call --as bob admin.vm.Start bob-build              start a qube as bob
  tools/call --as bob admin.vm.property.Set+label vault red a call that policy denies
  tools/call admin.vm.property.GetAll team-web              everything about a qube, as dom0
  tail -f {audit}
  $EDITOR {policy}/30-demo-bob.policy     and save: it is in force
With tools/run stopped, rm -r {root} begins anew."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/run", description="Run the demo system on ./var and show a tour."
    )
    parser.add_argument("--once", action="store_true", help="end after the tour instead of staying")
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="the daemon's directory (default: $QUBESD_ROOT or ./var)"
    )
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run(asked.root.absolute(), stay=not asked.once)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return 0 if not asked.once else 130
    except (DaemonError, ConfigError, NoSuchCaller, client.CallError, client.NoReplyError, OSError) as error:
        print(f"tools/run: {error}", file=sys.stderr)
        return 1
    return 0


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _run(root: Path, stay: bool) -> None:
    began = time.monotonic()
    config = load(root)
    lay_out_policy(config)
    colours = Colours.of(sys.stdout)
    with serving(root) as config:
        public = config.run_dir / "qubesd.sock"
        made = system.load(public)
        print(colours.title(f"qubesd serves {_near(public)} on {config.libvirt_uri}"), end=" ")
        what = "with a new demo system" if made else "with the demo system as it was left"
        print(f"{what}; {time.monotonic() - began:.1f} s to here")
        Tour.of(config, colours, print).show()
        print(NEXT.format(audit=_near(config.audit_log), policy=_near(config.policy_dir), root=_near(root)))
        if stay:
            print("\nCtrl-C stops it.", flush=True)
            signal.pause()


def _near(path: Path) -> str:
    """The path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


if __name__ == "__main__":
    sys.exit(main())
