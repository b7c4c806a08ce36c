"""The command line of ``qubes-policy``: the stock options, and a command for each thing that authors do."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from broker.authoring.options import add_places, add_system_info

DESCRIPTION = """\
Edit the policy, and find out what it does.

In dom0 the files are edited in place, by the same checks and under the same lock
as over the Policy Admin API: a change that would leave a broken policy is
refused, one that is made is in force, whole, and entered in the history. In a
qube, which has no policy, the files are those of dom0, as far as its policy
allows the calls; there check, explain, status, history, rollback, backup and
restore are not to be had.

A file is named as the calls name it: 30-user is the file 30-user.policy,
include/team-a is team-a in the folder of included files. Without a command the
files are listed; the options of the stock program are here too.
"""
EPILOG = """\
exit status:
  0    done; well formed; explained; in force
  1    refused, or left as it was; the policy has errors
  2    what was asked for is not to be had; standard error says why
  130  interrupted at a question; nothing was changed

environment:
  VISUAL, EDITOR
      the editor of edit; without either it is vi
  NO_COLOR
      no colours on a terminal

files:
  /etc/qubes/policy.d, /run/qubes/policy.d
      the policy; the first is edited
  /var/lib/qubes/policy-history
      the history
  /etc/qubes/qubesd.toml
      says where all this lies, if it is elsewhere

examples:
  qubes-policy edit 30-user                      as visudo edits
  qubes-policy check                             is all of it well formed?
  qubes-policy explain mgmt admin.vm.Start work  why is it allowed or denied?
  qubes-policy status                            who decides, and by what?
  qubes-policy history
  qubes-policy rollback 12
  qubes-policy backup /mnt/usb/policy.tar
  qubes-policy -l include/                       the stock way to list

see also:
  qubes-policy-editor(1), qubes-policy-lint(1), qrexec-policy-graph(1), qubesd(8),
  qrexec-policy-daemon(8), qubesd.toml(5)
"""
_CHECK = """\
Show every error of every file.

With an error in any file, none of the policy comes into force. A file that is
included as a frame of the delegation dialect is the exception: an error in it
closes the frame, and a warning says so.
"""
_CHECK_EXAMPLES = """\
examples:
  qubes-policy check            the directories that are configured
  qubes-policy check ./mine     one that is not installed yet
  qubes-policy check --alone    as a policy daemon beside a stock qubesd reads them
"""
_EXPLAIN = """\
Show how a call is decided by the policy files as they are now, and why.

Besides the rule that decides it shows what that rule asks for, the rules before
it that match in all fields but one, and how much the caller may have of what it
creates. Which other qubes a call touches is known only when it is made.
"""
_EXPLAIN_EXAMPLES = """\
examples:
  qubes-policy explain mgmt admin.vm.property.Get+label work
  qubes-policy explain mgmt admin.vm.property.Set+memory work --value 4096
  qubes-policy explain work qubes.Filecopy @default
  qubes-policy explain work qubes.OpenURL @dispvm:web
  qubes-policy explain sys-relay qubes.Filecopy work \\
      --requested-source remote-laptop
"""
_STATUS = """\
Show who decides, and by what.

It asks every daemon of ours that may run which policy is in force, what is
wrong with the files and where it is asked, and waits five seconds at most.
"""
_LIST = """\
List the files of the policy, or those in the folder of included files.
"""
_INCLUDED = """\
List the files in the folder of included files, as the stock program does.
"""
_GET = """\
Print a file; with --token the line that tells this content from others first.
"""
_SET = """\
Make standard input, or a file, the content of a file of the policy.

It is refused if the policy would not be whole with it. With --dry-run it is not
done: what would change is shown, and what that means, as edit shows it.
"""
_SET_EXAMPLES = """\
examples:
  qubes-policy set 30-user < mine
  qubes-policy set include/team-a --from ./team-a --if new
  qubes-policy set 30-user --from mine --dry-run    what would it do?
"""
_REMOVE = """\
Take a file out of the policy.

It is refused for a file that another one still includes. With --dry-run it is not
done: what would change is shown, and what that means, as edit shows it.
"""
_EDIT = """\
Edit a copy of a file, and put it into force when it is good.

When the editor ends, the whole policy is checked with the change in it. With an
error in it you edit again, or quit; the policy is not touched. Without one it
shows what changes in the text, and what that means: which calls of which qubes
are answered otherwise. It warns where somebody is locked out, and asks before it
puts the change into force. What somebody else has changed meanwhile is not
overwritten.
"""
_EDIT_EXAMPLES = """\
examples:
  qubes-policy edit
  EDITOR=nano qubes-policy edit include/team-a
"""
_HISTORY = """\
Show who changed which file when, or what one entry changed.

What was changed without this program, or the calls, is entered when it is
noticed.
"""
_BACKUP = """\
Write the policy and its history to a file.

The file is a plain tar, which is written whole or not at all. With --frame it is
of one included file and its changes alone, for whoever owns that frame.
"""
_BACKUP_EXAMPLES = """\
examples:
  qubes-policy backup /mnt/usb/policy.tar
  qubes-policy backup --frame team-a team-a.tar
"""
_RESTORE = """\
Make the policy, or one included file, what it is in a backup.

It shows what changes, as edit does, and asks. It is one entry of the history,
and the entries of the backup that are not known here come before it.
"""
_RESTORE_EXAMPLES = """\
examples:
  qubes-policy restore /mnt/usb/policy.tar
  qubes-policy restore --frame team-a /mnt/usb/policy.tar
"""
_ROLLBACK = """\
Make the policy what it was after an entry of the history.

It shows what changes, as edit does, and asks. The way back is an entry of its
own, so it can be taken back in turn.
"""

Command = Callable[..., argparse.ArgumentParser]


def parser() -> argparse.ArgumentParser:
    """The command line; ``command`` is ``None`` where an option of the stock program says what to do."""
    parser = argparse.ArgumentParser(
        prog="qubes-policy",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_places(parser)
    stock = parser.add_mutually_exclusive_group()
    stock.add_argument(
        "-l",
        "--list",
        nargs="?",
        const="",
        metavar="include/",
        help="list the files, or those in the folder of included files",
    )
    stock.add_argument("-g", "--get", metavar="NAME", help="print a file")
    stock.add_argument("-r", "--replace", metavar="NAME", help="make standard input the content of a file")
    stock.add_argument("-d", "--remove", metavar="NAME", help="take a file out of the policy")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    command: Command = partial(commands.add_parser, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_reports(command)
    _add_files(command)
    _add_keeping(command)
    return parser


def add_preview(parser: argparse.ArgumentParser, yes: str) -> None:
    """The options of what shows a change before it is made."""
    parser.add_argument("-y", "--yes", action="store_true", help=yes)
    add_system_info(parser)


def _add_reports(command: Command) -> None:
    check = command("check", help="show every error", description=_CHECK, epilog=_CHECK_EXAMPLES)
    check.add_argument(
        "directory",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="check this policy directory alone (default: those that are configured)",
    )
    check.add_argument(
        "--alone",
        action="store_true",
        help="read it as qrexec-policy-daemon does on a stock dom0, where it decides what others carry out",
    )
    why = command("explain", help="show why", description=_EXPLAIN, epilog=_EXPLAIN_EXAMPLES)
    why.add_argument("source", metavar="SOURCE", help="the calling qube")
    why.add_argument("service", metavar="SERVICE[+ARG]", help="such as admin.vm.Start or qubes.Filecopy")
    why.add_argument("target", metavar="TARGET", help="a qube, @default, @dispvm, @dispvm:NAME or dom0")
    why.add_argument(
        "--requested-source",
        metavar="NAME",
        help="the RemoteVM that SOURCE, its relay, calls for",
    )
    why.add_argument(
        "--value",
        action="append",
        metavar="VALUE",
        help="the payload, for a rule that looks at it; KEY=VALUE, more than once, where it has keys",
    )
    why.add_argument("--json", action="store_true", help="print JSON, for programs")
    add_system_info(why)
    status = command("status", help="show who decides", description=_STATUS)
    status.add_argument("--json", action="store_true", help="print JSON, for programs")


def _add_files(command: Command) -> None:
    several = command("list", help="list the files", description=_LIST)
    several.add_argument(
        "folder", nargs="?", default="", choices=["", "include/"], metavar="include/", help="the folder"
    )
    included = command("include/", help="list the included files", description=_INCLUDED)
    included.set_defaults(folder="include/")
    get = command("get", help="print a file", description=_GET)
    get.add_argument("name", metavar="NAME", help="the file, such as 30-user or include/team-a")
    get.add_argument("--token", action="store_true", help="print the token before the content")
    replace = command("set", help="give a file a content", description=_SET, epilog=_SET_EXAMPLES)
    replace.add_argument("name", metavar="NAME", help="the file, such as 30-user or include/team-a")
    replace.add_argument("--from", dest="source", type=Path, metavar="FILE", help="read this file instead")
    _add_token(replace)
    _add_dry_run(replace)
    remove = command("remove", help="take a file away", description=_REMOVE)
    remove.add_argument("name", metavar="NAME", help="the file, such as 30-user or include/team-a")
    _add_token(remove)
    _add_dry_run(remove)
    edit = command("edit", help="edit a file as visudo does", description=_EDIT, epilog=_EDIT_EXAMPLES)
    add_file(edit)
    add_preview(edit, "do not ask, unless there is a warning")


def add_file(parser: argparse.ArgumentParser) -> None:
    """The file to edit."""
    parser.add_argument(
        "name",
        nargs="?",
        default="30-user",
        metavar="NAME",
        help="the file, made if it is not there, such as include/team-a (default: %(default)s)",
    )


def _add_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--if",
        dest="token",
        default="any",
        metavar="TOKEN",
        help="only if the file is the one that get --token told of, or new if there must be none "
        "(default: %(default)s)",
    )


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="show what it would do, and change nothing"
    )
    add_system_info(parser)


def _add_keeping(command: Command) -> None:
    history = command("history", help="show who changed what", description=_HISTORY)
    history.add_argument(
        "entry", nargs="?", type=int, metavar="N", help="show what this entry changed (default: list all)"
    )
    history.add_argument("--json", action="store_true", help="print JSON, for programs; of all entries")
    rollback = command("rollback", help="go back to an entry", description=_ROLLBACK)
    rollback.add_argument("entry", type=int, metavar="N", help="the entry after which it was as it shall be")
    add_preview(rollback, "do not ask")
    backup = command(
        "backup", help="write policy and history to a file", description=_BACKUP, epilog=_BACKUP_EXAMPLES
    )
    backup.add_argument("archive", type=Path, metavar="FILE", help="the file, replaced if it is there")
    _add_frame(backup)
    restore = command("restore", help="take them from there", description=_RESTORE, epilog=_RESTORE_EXAMPLES)
    restore.add_argument("archive", type=Path, metavar="FILE", help="the backup")
    _add_frame(restore)
    add_preview(restore, "do not ask")


def _add_frame(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--frame",
        default="",
        metavar="NAME",
        help="one included file alone, such as team-a (default: the whole policy)",
    )
