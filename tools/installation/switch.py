#!/usr/bin/python3 -I
"""Whose policy daemon decides: the stock one alone, ours beside it, or ours instead of it.

Everything is a link that leads to our program, so what is ours can be told from what is not, each step
happens whole or not at all, and a switch that was cut short is finished by making it again. Nothing of the
stock installation is changed but one program, of which the original is kept beside it.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path("/usr/lib/qubes-admin-core")
UNITS = Path("/etc/systemd/system")
STOCK_UNITS = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
STOCK_UNIT = "qubes-qrexec-policy-daemon.service"
STOCK_SOCKET = "qubes-qrexec-policy-daemon.socket"
"""Ours alone; systemd gives its sockets to the unit that has the same name."""

TRIAL_UNIT = "qubes-admin-policy-daemon.service"
FALLBACK = Path("/usr/bin/qrexec-policy-exec")
"""What the C daemon runs when the policy socket does not answer. The path is fixed in the C program."""

SOCKETS = {"instead": Path("/run/qubes/policy.sock"), "beside": Path("/run/qubes-admin-core/policy.sock")}
MODES = ("stock", "beside", "instead")

QUESTION = (
    b"source=dom0\nintended_target=@default\nservice_and_arg=qubes.NoSuchService+\njust_evaluate=yes\n\n"
)
PATIENCE = 10.0
"""Seconds for which the question that shows that a daemon works waits for its answer to go on."""

MAX_ANSWER = 4096
"""Bytes; the C daemon takes no more either."""

_DESCRIPTION = """\
Say whose policy daemon decides on the calls between qubes.

  stock    the stock daemon alone
  beside   the stock daemon; ours answers on a socket of its own, to be tried
  instead  ours alone, also as the program that the qrexec daemon falls back to

A daemon of ours that does not answer a question after the switch gives way to
the position before. A switch that was cut short is finished, or taken back, by
making one again. Of the stock system one program is moved aside, and comes back.
"""
_EPILOG = """\
exit status:
  0  it is so
  1  it cannot be; standard error says why, and the position is the one before
  2  the command line is wrong

files:
  /usr/lib/qubes-admin-core
      our programs and units
  /etc/systemd/system
      where the links to our units make a position
  /usr/bin/qrexec-policy-exec, /usr/bin/qrexec-policy-exec.stock
      what the qrexec daemon falls back to, and the stock one while ours is there

examples:
  qubes-policy-switch status
  qubes-policy-switch beside
  qubes-policy-switch instead
  qubes-policy-switch stock     the way back

see also:
  qrexec-policy-daemon(8), qrexec-policy-exec(8), qubes-policy(1)
"""

Systemctl = Callable[..., None]
"""Runs ``systemctl`` with these words. Raises ``OSError`` or ``CalledProcessError`` where it fails."""


class SwitchError(Exception):
    """It cannot be done, and everything is as it was; the text begins with the place."""


@dataclass(frozen=True, slots=True)
class Link:
    """A path at which a link to a file of ours stands for a mode; both are absolute, below the root."""

    place: Path
    leads: Path

    def ours(self, root: Path) -> bool:
        """Whether the link is there. One that leads elsewhere, or a file, is somebody else's."""
        path = below(root, self.place)
        return path.is_symlink() and path.readlink() == self.leads

    def put(self, root: Path) -> None:
        if not self.ours(root):
            put_link(below(root, self.place), self.leads)

    def take(self, root: Path) -> None:
        hidden(below(root, self.place)).unlink(missing_ok=True)
        if self.ours(root):
            below(root, self.place).unlink()
            sync_folder(below(root, self.place).parent)


def unit_links(unit: str, target: str) -> tuple[Link, Link]:
    """The unit under its name, and what has the target start it at boot."""
    leads = PROGRAM / "systemd" / unit
    return Link(UNITS / unit, leads), Link(UNITS / f"{target}.wants" / unit, leads)


LINKS = {
    "beside": (unit_links(TRIAL_UNIT, "multi-user.target"),),
    "instead": (unit_links(STOCK_SOCKET, "sockets.target"), unit_links(STOCK_UNIT, "multi-user.target")),
}
"""Of each mode, in the order in which they are put; a unit that needs another one comes after it."""

OUR_FALLBACK = Link(FALLBACK, PROGRAM / "bin" / FALLBACK.name)


def switch(root: Path, wanted: str, systemctl: Systemctl | None) -> None:
    """Make this the mode.

    Args:
        root: the directory that stands for ``/``.
        wanted: one of ``MODES``.
        systemctl: called when the files are as they shall be; where it fails, they are put back. ``None``
            where no systemd runs: in a scratch root, or while an image is made.

    Raises:
        SwitchError: something is in the way, or the daemon does not run; the mode is the one before.
    """
    with locked(root):
        before = mode(root)
        if wanted != "stock":
            check(root, wanted)
        try:
            change(root, before, wanted, systemctl)
        except (OSError, subprocess.CalledProcessError, SwitchError) as error:
            try:
                change(root, wanted, before, systemctl)
            except (OSError, subprocess.CalledProcessError, SwitchError) as again:
                lay(root, before)
                raise SwitchError(
                    f"{error}; back in mode {before!r}, whose daemon fails too: {again}"
                ) from error
            raise SwitchError(f"{error}; back in mode {before!r}") from error


def change(root: Path, before: str, wanted: str, systemctl: Systemctl | None) -> None:
    """Leave a mode, make the links of another one and start what belongs to it."""
    if systemctl is not None and before == "instead" != wanted and all(our_units(root, before)):
        # While systemd still knows that it is to take the sockets away.
        systemctl("stop", STOCK_SOCKET)
    lay(root, wanted)
    start(root, before, wanted, systemctl)


def mode(root: Path) -> str:
    """The mode that the links make; one that was cut short counts as the one that was wanted."""
    if OUR_FALLBACK.ours(root) or any(our_units(root, "instead")):
        return "instead"
    return "beside" if any(our_units(root, "beside")) else "stock"


def our_units(root: Path, name: str) -> list[bool]:
    """For each unit of a mode, whether it is in its place."""
    return [unit.ours(root) for unit, _ in LINKS[name]]


def check(root: Path, wanted: str) -> None:
    """That our program is there and that no file of somebody else is in the way of a unit."""
    units = [unit for unit, _ in LINKS[wanted]]
    for needed in (*(unit.leads for unit in units), PROGRAM / "bin/qrexec-policy-daemon", OUR_FALLBACK.leads):
        if not resolved(root, needed).exists():
            raise SwitchError(f"{below(root, needed)}: not there, install it first")
    for unit in units:
        path = below(root, unit.place)
        if not unit.ours(root) and os.path.lexists(path):
            raise SwitchError(
                f"{path}: this unit is not ours, move it away first (systemctl revert {path.name})"
            )


def lay(root: Path, wanted: str) -> None:
    """Put and take links until they are those of the mode; every state between is one that works."""
    if wanted == "instead":
        keep_stock_fallback(root)
        OUR_FALLBACK.put(root)
    for name, links in LINKS.items():
        if name == wanted:
            for unit, wants in links:
                unit.put(root)
                if not os.path.lexists(below(root, wants.place)):
                    wants.put(root)
        else:
            for unit, wants in reversed(links):
                wants.take(root)
                unit.take(root)
    if wanted != "instead":
        restore_stock_fallback(root)


def kept(root: Path) -> Path:
    """Where the stock program is while ours has its place."""
    return below(root, FALLBACK.with_name(FALLBACK.name + ".stock"))


def keep_stock_fallback(root: Path) -> None:
    """Give the stock program a second name; one that came with an upgrade takes over from the one kept."""
    path = below(root, FALLBACK)
    if OUR_FALLBACK.ours(root) or not os.path.lexists(path):
        return
    spare = hidden(kept(root))
    spare.unlink(missing_ok=True)
    os.link(path, spare, follow_symlinks=False)
    # Renaming a name over another one of the same file does nothing and keeps both.
    spare.replace(kept(root))
    spare.unlink(missing_ok=True)
    sync_folder(path.parent)


def restore_stock_fallback(root: Path) -> None:
    """Put the stock program back in one step; where it is in its place already, the one kept is spare."""
    for path in (kept(root), below(root, FALLBACK)):
        hidden(path).unlink(missing_ok=True)
    if OUR_FALLBACK.ours(root):
        if os.path.lexists(kept(root)):
            kept(root).replace(below(root, FALLBACK))
        else:
            OUR_FALLBACK.take(root)
    elif os.path.lexists(below(root, FALLBACK)):
        kept(root).unlink(missing_ok=True)
    if below(root, FALLBACK.parent).exists():
        sync_folder(below(root, FALLBACK.parent))


def start(root: Path, before: str, wanted: str, systemctl: Systemctl | None) -> None:
    """Have the daemons of the mode run, and no other of ours; one of ours has to answer."""
    if systemctl is None:
        return
    systemctl("daemon-reload")
    if before == "beside" != wanted:
        systemctl("stop", TRIAL_UNIT)
    if "instead" in (before, wanted):
        # Whoever runs under this name: systemd opens the sockets only while their unit is at rest.
        systemctl("stop", STOCK_UNIT)
        if wanted == "instead" or any(below(root, path / STOCK_UNIT).exists() for path in STOCK_UNITS):
            systemctl("start", STOCK_UNIT)
    if wanted == "beside":
        systemctl("restart", TRIAL_UNIT)
    if wanted in SOCKETS:
        ask(below(root, SOCKETS[wanted]))


def ask(path: Path) -> None:
    """Ask for a decision that changes nothing. Raises ``SwitchError`` where none comes."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            connection.sendall(QUESTION)
            answer = b""
            while len(answer) <= MAX_ANSWER and (more := connection.recv(MAX_ANSWER)):
                answer += more
    except OSError as error:
        raise SwitchError(f"{path}: the daemon does not answer: {error.strerror or error}") from error
    if answer.strip() not in (b"result=allow", b"result=deny"):
        raise SwitchError(f"{path}: the daemon's answer is not a decision: {answer[:80]!r}")


def report(root: Path) -> Iterator[str]:
    """The mode in the first line, then what is not as the mode wants it."""
    yield mode(root)
    if mode(root) == "instead":
        if not OUR_FALLBACK.ours(root):
            yield f"{below(root, FALLBACK)}: not ours, an upgrade replaced it: qubes-policy-switch instead"
        elif not os.path.lexists(kept(root)):
            yield f"{kept(root)}: no stock program was kept"
        for unit, _ in LINKS["instead"]:
            if not unit.ours(root):
                yield f"{below(root, unit.place)}: not ours, a switch was cut short; repeat it"


def run_systemctl(*words: str) -> None:
    subprocess.run(["systemctl", *words], check=True, stdin=subprocess.DEVNULL)


def systemctl_for(root: Path) -> Systemctl | None:
    return run_systemctl if root == Path("/") and Path("/run/systemd/system").is_dir() else None


def below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def resolved(root: Path, path: Path) -> Path:
    """Where a path of the program leads: absolute links in a scratch root mean that root."""
    program = below(root, PROGRAM)
    if program.is_symlink():
        program = program.parent / program.readlink()
    return program / path.relative_to(PROGRAM)


def hidden(path: Path) -> Path:
    """The name under which something is made that then moves to its path; systemd passes it over."""
    return path.with_name(f".{path.name}.qubes-admin-core")


def put_link(path: Path, leads: Path) -> None:
    """A link in place of whatever is there, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = hidden(path)
    new.unlink(missing_ok=True)
    new.symlink_to(leads)
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """One switch at a time, for as long as it takes."""
    folder = below(root, UNITS)
    folder.mkdir(parents=True, exist_ok=True)
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def parser() -> argparse.ArgumentParser:
    """The command line of ``qubes-policy-switch``."""
    parser = argparse.ArgumentParser(
        prog="qubes-policy-switch",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="the directory that stands for / (default: %(default)s)",
    )
    parser.add_argument("mode", choices=[*MODES, "status"], help="the position to take, or status to see it")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits 1 with a message where the mode cannot be made."""
    options = parser().parse_args(arguments)
    root = options.root.absolute()
    try:
        if options.mode != "status":
            switch(root, options.mode, systemctl_for(root))
        print("\n".join(report(root)))
    except (SwitchError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"qubes-policy-switch: {error}")


if __name__ == "__main__":
    main()
