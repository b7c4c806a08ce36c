"""``qube-backup``: verify, list and restore archives of backups."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from broker.backup.added import new_folder
from broker.backup.archive import Archive, Saved, SavedHome
from broker.backup.home import check_home, restore_home, target
from broker.backup.intermixed import Intermixed
from broker.backup.plan import chosen, plan
from broker.backup.progress import Progress
from broker.backup.restore import Restore
from broker.backup.system import LiveSystem
from broker.backup.verify import verify, verify_others
from qubesd.backup.processes import Processes
from qubesd.backup.profile import check_passphrase
from qubesd.config import ConfigError, load
from qubesd.errors import QubesError
from qubesd.model.state import DOM0, Klass

_MOST_PASSPHRASE = 4096
"""Bytes of a file that are looked at."""

_DESCRIPTION = """\
Verify, list and restore archives of backups.

An archive is of format 4, as qubesd makes it by a profile and as the stock tools
of Qubes OS 4 do. It is a file of this machine; it is decrypted by scrypt(1).
Nothing of it is unpacked before it was found authentic, and nothing is restored
before all of what is asked for was read to its end. The passphrase is asked for
on the terminal.

A restore makes qubes by calls to the qubesd that runs. A name that is taken gets
a number behind it, and what there is already is never changed. The home of dom0
is the qube dom0 here: it goes into a new folder, and needs no qubesd. What
extensions of qubesd had saved of a qube no call brings in; --files puts it into
a directory.
"""
_EPILOG = """\
exit status:
  0    done
  1    the archive is damaged, none, hostile, or its passphrase is another;
       or something was not restored, which standard error tells
  2    the command line is wrong
  130  interrupted; a restore leaves the qubes that it had finished, and one that
       it had not, which cannot start and can be removed; of a home it leaves
       nothing

environment:
  TMPDIR
      where a piece of 100 MiB is put aside, without a name

files:
  /etc/qubes/backup/NAME.conf
      the profiles by which qubesd makes backups
  /var/run/qubesd.sock, /var/run/qubesd.internal.sock
      where a restore calls
  home-restore-YYYY-MM-DDTHHMMSS
      the home of dom0 as it was saved, in the home of the first member of
      socket_group, to whom it belongs; .home-restore-... is one that is not whole,
      which the next restore removes if this one was killed

examples:
  qube-backup verify /mnt/usb/qubes-2026-01-31T120000
  qube-backup list --json --passphrase-file /root/phrase /mnt/usb/weekly
  qube-backup restore /mnt/usb/weekly
  qube-backup restore /mnt/usb/weekly work debian-13
  qube-backup restore /mnt/usb/weekly --exclude dom0
  qube-backup restore --home /mnt/usb /mnt/usb/weekly dom0
  qube-backup restore --files /root/of-extensions /mnt/usb/weekly

see also:
  qubesd(8), qubesd.toml(5)
"""
_VERIFY = """\
Read all of the archive, and say whether it is whole and what was written.
"""
_LIST = """\
Show which qubes are in the archive, and what it would restore of them. Its
header and list of qubes are verified, the rest is not read.
"""
_RESTORE = """\
Restore qubes, all of them where none is named, and dom0's home if it is in the
archive. What is to be restored is verified first, so that a damaged archive
changes nothing. The home is there whole or not at all; of its files' modes the
bits setuid, setgid and sticky are left out.
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Exits as the program's help says."""
    options = parser().parse_args(arguments)
    processes = Processes()
    try:
        sys.exit(options.run(options, processes))
    except (QubesError, ConfigError) as error:
        print(f"qube-backup: {error}", file=sys.stderr)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"qube-backup: {where}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nqube-backup: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """The command line of ``qube-backup``."""
    made = argparse.ArgumentParser(
        prog="qube-backup",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(metavar="COMMAND", required=True, parser_class=Intermixed)
    _command(commands, "verify", "read all of an archive", _VERIFY, _verify)
    _command(commands, "list", "show what is in an archive", _LIST, _list)
    restore = _command(commands, "restore", "restore qubes of an archive", _RESTORE, _restore)
    restore.add_argument(
        "qubes", nargs="*", default=[], metavar="QUBE", help="the qubes to restore (default: all)"
    )
    restore.add_argument(
        "--exclude", action="append", default=[], metavar="QUBE", help="leave this one out; may be repeated"
    )
    restore.add_argument(
        "--home", type=Path, metavar="DIR", help="put the home of dom0 here, as whoever this belongs to"
    )
    restore.add_argument(
        "--files",
        type=Path,
        metavar="DIR",
        help="put what extensions of qubesd had saved into this new directory, as DIR/QUBE/FILE",
    )
    restore.add_argument(
        "--source",
        default=DOM0,
        metavar="QUBE",
        help="call in the name of this qube, judged as it is, and restore no home of dom0",
    )
    restore.add_argument(
        "--root", type=Path, metavar="DIR", help="the system that a qubesd keeps below this directory"
    )
    restore.add_argument("--config", type=Path, metavar="FILE", help="the configuration of qubesd")
    return made


def _command(
    commands: argparse._SubParsersAction[Intermixed],
    name: str,
    help_: str,
    description: str,
    run: Callable[[argparse.Namespace, Processes], int],
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=help_, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("archive", type=Path, metavar="FILE", help="the archive")
    command.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="read the passphrase from the first line of this file (default: ask for it)",
    )
    command.add_argument("--json", action="store_true", help="answer with one JSON object")
    command.set_defaults(run=run)
    return command


def _verify(options: argparse.Namespace, processes: Processes) -> int:
    with _opened(options, processes) as archive:
        saved = archive.saved.values()
        with _progress("verifying", saved, archive.home) as progress:
            verify(archive, saved, progress.count)
            if archive.home is not None:
                check_home(archive, archive.home, progress.count)
            verify_others(archive, progress.count)
        answer = {"verified": True, "qubes": _inside(archive), "other": archive.other}
        what = f"{len(saved)} qubes" + (" and dom0's home" if archive.home is not None else "")
        _say(options, answer, [f"{options.archive}: whole and authentic, {what}"])
    return 0


def _list(options: argparse.Namespace, processes: Processes) -> int:
    with _opened(options, processes) as archive:
        rows = [_row(one) for one in archive.saved.values()]
        lines = ["qube                             class         size (bytes)  images and added files"]
        lines += [_line(row, " ".join(row["images"] + row["added"]) or "-") for row in rows]
        if archive.home is not None:
            rows.append(_home_row(archive.home))
            lines.append(_line(rows[-1], f"home of {archive.home.user}"))
        lines += [f"besides: {path}" for path in archive.other]
        answer = {"backup-id": archive.header.backup_id, "qubes": rows, "other": archive.other}
        _say(options, answer, lines)
    return 0


def _row(one: Saved) -> dict[str, Any]:
    return {
        "name": one.qube.name,
        "class": str(one.qube.klass),
        "size": one.size,
        "images": sorted(one.images),
        "added": sorted(one.added),
    }


def _home_row(home: SavedHome) -> dict[str, Any]:
    return {"name": DOM0, "class": str(Klass.ADMIN), "size": home.size, "images": [], "added": []}


def _line(row: Mapping[str, Any], content: str) -> str:
    return f"{row['name']:<32} {row['class']:<12} {row['size']:>13}  {content}"


def _inside(archive: Archive) -> list[str]:
    """The names of what is in it, as they are typed."""
    return sorted([*archive.saved, *([DOM0] if archive.home is not None else [])])


def _restore(options: argparse.Namespace, processes: Processes) -> int:
    config = load(options.root, options.config)
    run = config.run_dir
    system = LiveSystem(run / "qubesd.sock", run / "qubesd.internal.sock", options.source)
    with _opened(options, processes) as archive, _for_files(options.files) as files:
        names = _names(options, archive)
        home = archive.home if DOM0 in names else None
        place = target(options.home, config.socket_group) if home is not None else None
        saved = [archive.saved[name] for name in names if name != DOM0]
        steps = plan(saved, system.qubes() if saved else {})
        with _progress("verifying", saved, home) as progress:
            verify(archive, saved, progress.count)
            if home is not None:
                check_home(archive, home, progress.count)
        warnings: list[str] = []
        folder = None
        with _progress("restoring", saved, home) as progress:
            restore = Restore(archive, system, steps, warnings.append, progress.count, files)
            done = restore.run() if saved else []
            if home is not None and place is not None:
                try:
                    folder = restore_home(archive, home, place, progress.count)
                except QubesError as error:
                    warnings.append(f"{DOM0}: not restored: {error}")
    old = {new: name for name, new in steps.names.items()}
    lines = [f"{name}: restored" + ("" if old[name] == name else f" (was {old[name]})") for name in done]
    lines += [f"{DOM0}: restored into {folder}"] if folder is not None else []
    answer = {"restored": {old[name]: name for name in done}, "home": folder and str(folder)}
    _say(options, {**answer, "warnings": warnings}, lines)
    for warning in warnings:
        print(f"qube-backup: {warning}", file=sys.stderr)
    return 1 if warnings else 0


def _names(options: argparse.Namespace, archive: Archive) -> list[str]:
    """What is to be restored. dom0's home is that for dom0 only: no policy judges who writes it."""
    inside, excluded = _inside(archive), options.exclude
    if options.source != DOM0 and DOM0 in inside:
        if DOM0 in options.qubes:
            raise QubesError(f"the home of dom0 is restored for dom0 only, not for {options.source!r}")
        excluded = [*excluded, DOM0]
    return chosen(inside, options.qubes, excluded)


@contextmanager
def _opened(options: argparse.Namespace, processes: Processes) -> Iterator[Archive]:
    passphrase = _passphrase(options.passphrase_file)
    with closing(Archive(options.archive, passphrase, processes)) as archive:
        yield archive


def _for_files(place: Path | None) -> AbstractContextManager[Path | None]:
    return nullcontext() if place is None else new_folder(place)


def _passphrase(file: Path | None) -> str:
    if file is None:
        return check_passphrase(_typed(), "the terminal")
    with file.open("rb") as opened:
        line = opened.read(_MOST_PASSPHRASE).split(b"\n")[0]
    return check_passphrase(line.decode("utf-8", "surrogateescape"), str(file))


def _typed() -> str:
    try:
        return getpass.getpass("Passphrase of the backup: ")
    except (EOFError, UnicodeDecodeError) as error:
        raise QubesError("no passphrase was typed; it can be read from a file: --passphrase-file") from error


@contextmanager
def _progress(what: str, saved: Iterable[Saved], home: SavedHome | None) -> Iterator[Progress]:
    size = sum(one.size for one in saved) + (home.size if home is not None else 0)
    progress = Progress(what, size)
    try:
        yield progress
    finally:
        progress.end()


def _say(options: argparse.Namespace, answer: Mapping[str, Any], lines: Iterable[str]) -> None:
    print(json.dumps(answer) if options.json else "\n".join(lines))


if __name__ == "__main__":
    main()
