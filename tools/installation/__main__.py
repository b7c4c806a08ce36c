"""Mains of ``tools/package``, ``tools/install`` and ``tools/remove``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from pathlib import Path

from tools.installation import tree, wheel
from tools.installation.switch import SwitchError, systemctl_for

DIST = Path("dist")


def package(options: argparse.Namespace) -> None:
    made = wheel.build(options.output)
    print(made)
    if options.kind == "deb":
        # It knows every call, and so needs all of ours; a dom0 that only installs has these tools alone.
        from tools.installation import debian

        print(*debian.build(made, options.output), sep="\n")


def install(options: argparse.Namespace) -> None:
    root = options.root.absolute()
    found = [options.wheel] if options.wheel else sorted(DIST.glob("qubes_admin_core-*.whl"))
    if len(found) != 1:
        sys.exit(
            f"tools/install: {DIST}: expected one wheel, found {len(found)}: make it with tools/package wheel"
        )
    mode = "instead" if options.instead else "beside"
    tree.install(found[0], root, mode, systemctl_for(root))
    print(f"installed {mode} the stock policy daemon; tools/remove puts everything back")


def remove(options: argparse.Namespace) -> None:
    root = options.root.absolute()
    tree.remove(root, systemctl_for(root))
    print("removed; the stock policy daemon decides alone")


def main() -> None:
    """Exits 1 with a message where it cannot be done."""
    parser = argparse.ArgumentParser(prog="tools")
    commands = parser.add_subparsers(dest="command", required=True)
    packaging = commands.add_parser("package", help="build the wheel, and Debian packages of it")
    packaging.add_argument(
        "kind", choices=("wheel", "deb"), help="deb: the wheel too, of which they are made"
    )
    packaging.add_argument("--output", type=Path, default=DIST, metavar="DIR", help="default: dist/")
    installing = commands.add_parser("install", help="install the policy part where a stock qubesd is")
    installing.add_argument("--wheel", type=Path, metavar="FILE", help="default: the one in dist/")
    installing.add_argument("--instead", action="store_true", help="take the stock policy daemon's place")
    removing = commands.add_parser("remove", help="put the stock policy daemon back, take the rest away")
    for command in (installing, removing):
        command.add_argument("--root", type=Path, default=Path("/"), help="the directory that stands for /")
    packaging.set_defaults(run=package)
    installing.set_defaults(run=install)
    removing.set_defaults(run=remove)
    options = parser.parse_args()
    try:
        options.run(options)
    except (SwitchError, ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"tools/{options.command}: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"tools/{options.command}: {error.cmd[0]} failed with status {error.returncode}")


if __name__ == "__main__":
    main()
