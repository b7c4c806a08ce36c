"""``qrexec-policy-graph``: a policy as a graph of who can call whom (``spec/policy-daemon.md`` 6)."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, TextIO

from broker.authoring.options import add_places, add_system_info
from broker.catalogue import catalogue
from broker.described import ToolError, described_world
from policy_engine import DirectorySource, Labels, Loader, Policy, PolicyError, Scope, graph
from policy_engine.errors import quoted_path
from policy_engine.parse import FieldError, read_redirect, read_source
from qubesd.config import Config, ConfigError, load

DOT = "dot"
"""Graphviz's program for graphs with a direction."""

PATIENCE = 120.0
"""Seconds for which Graphviz may think about one graph."""

_DESCRIPTION = """\
Draw a policy as a graph: which qube can call which service in which other.

The graph is in the DOT language of Graphviz, on standard output. A red edge is
a call that is allowed, an orange one a call that is asked for; a dotted node is
no qube but a word such as @dispvm. What leads elsewhere by target= is drawn as
leading there. Each service that a rule names is called once with each argument
that a rule names; a rule for all services is drawn as one called "*". Where a
rule of the delegation dialect says which qubes an argument may name, the first
of them is tried.

The qubes are those that the running qubesd tells of. The policy is read from
one directory alone, without the files in /run/qubes/policy.d.
"""
_EPILOG = """\
exit status:
  0  the graph is drawn
  1  the policy does not load; try "qubes-policy check"
  2  called wrongly, or what was asked for is not to be had

files:
  /etc/qubes/policy.d
      the policy that is drawn
  /etc/qubes/qubesd.toml
      says where the policy and qubesd's sockets lie, if that is elsewhere

examples:
  qrexec-policy-graph --include-ask --source work > work.dot
  qrexec-policy-graph --service qubes.Filecopy --output filecopy.svg
  qrexec-policy-graph --target dom0 vault --skip-labels --svg > secrets.svg

see also:
  qubes-policy(1), qubes-policy-lint(1), qrexec-legacy-convert(1), dot(1)
"""


def parser() -> argparse.ArgumentParser:
    """The command line of ``qrexec-policy-graph``."""
    made = argparse.ArgumentParser(
        prog="qrexec-policy-graph",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several = partial(made.add_argument, nargs="+", action="extend", metavar="NAME")
    made.add_argument("--include-ask", action="store_true", help="draw what is asked for as well")
    several("--source", type=_source, help="only calls by these (default: by every qube)")
    several("--target", type=_target, help="only calls that lead to these (default: to anything)")
    several("--service", help="only these, as SERVICE or SERVICE+ARGUMENT (default: those that rules name)")
    made.add_argument(
        "--output", type=Path, metavar="FILE", help="write there; a name that ends in .svg asks for --svg"
    )
    made.add_argument("--svg", action="store_true", help="have Graphviz make a picture of it, as SVG")
    made.add_argument(
        "--policy-dir", type=Path, metavar="DIR", help="the policy (default: /etc/qubes/policy.d)"
    )
    add_system_info(made)
    made.add_argument("--skip-labels", action="store_true", help="draw edges without the service's name")
    made.add_argument(
        "--full-output",
        action="store_true",
        help="label edges with the rule's service, argument and action, and draw asks too",
    )
    add_places(made)
    return made


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Exit status 0: drawn; 1: the policy does not load; 2: it is not to be had."""
    options = parser().parse_args(arguments)
    try:
        _draw(options)
    except PolicyError as error:
        _complain(f"{error}; qubes-policy check shows all errors")
        sys.exit(1)
    except (ToolError, ConfigError) as error:
        _complain(str(error))
        sys.exit(2)
    except BrokenPipeError:
        # Whoever reads has seen enough, as in `qrexec-policy-graph | head`.
        sys.stderr.close()
        sys.exit(2)
    sys.exit(0)


def _draw(options: argparse.Namespace) -> None:
    config = load(options.root, options.config)
    picture = options.svg or (options.output is not None and options.output.suffix == ".svg")
    program = _graphviz() if picture else ""
    world = described_world(options.system_info, config)
    labels = Labels.RULE if options.full_output else Labels.SERVICE
    scope = Scope(
        options.source,
        None if options.target is None else frozenset(options.target),
        options.service or (),
        options.include_ask or options.full_output,
        Labels.NONE if options.skip_labels else labels,
    )
    with Progress(sys.stderr) as progress:
        lines = graph(_policy(options.policy_dir, config), world, scope, progress.done)
        if picture:
            # Whole or not at all, and so nothing is there before Graphviz has said yes.
            _write(options.output, [_picture(program, "\n".join(lines))])
        else:
            _write(options.output, (f"{line}\n" for line in lines))


def _policy(directory: Path | None, config: Config) -> Policy:
    place = config.policy_dir if directory is None else directory.absolute()
    known = partial(catalogue, enforced=True)
    policy = Loader(DirectorySource(), [str(place)], str(config.policy_legacy), known).load()
    for warning in policy.warnings:
        _complain(f"warning: {warning}")
    return policy


def _graphviz() -> str:
    program = shutil.which(DOT)
    if program is None:
        raise ToolError(
            "Graphviz, which makes the picture, is not installed: install it (apt-get install graphviz, or "
            "qubes-dom0-update graphviz), or take the graph without --svg and draw it elsewhere"
        )
    return program


def _picture(program: str, text: str) -> str:
    edges = text.count(" -> ")
    try:
        done = subprocess.run(
            [program, "-Tsvg"], input=text.encode(), capture_output=True, timeout=PATIENCE, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            f"Graphviz has not drawn {edges} edges within {PATIENCE:.0f} s; draw fewer of them by --source, "
            "--target or --service, or take the graph without --svg"
        ) from error
    except subprocess.CalledProcessError as error:
        raise ToolError(f"{program}: {error.stderr.decode(errors='replace').strip()}") from error
    return done.stdout.decode()


def _write(place: Path | None, pieces: Iterable[str]) -> None:
    """To a file, or to standard output; in UTF-8, as Graphviz reads it."""
    if place is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece.encode())
        sys.stdout.flush()
        return
    try:
        with place.open("w", encoding="utf-8") as file:
            file.writelines(pieces)
    except OSError as error:
        raise ToolError(f"{quoted_path(str(place))}: {error.strerror}") from error


class Progress:
    """Says on a terminal how far it is, once it takes more than a second, and leaves no trace of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = time.monotonic() + 1.0 if stream.isatty() else None
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._say("\r\x1b[K")

    def done(self, steps: int, of: int) -> None:
        if self._next is not None and time.monotonic() >= self._next:
            self._next += 0.2
            self._shown = True
            self._say(f"\rqrexec-policy-graph: {100 * steps // of} % of the calls")

    def _say(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _source(text: str) -> str:
    return _checked(read_source, text)


def _target(text: str) -> str:
    return _checked(read_redirect, text)


def _checked(read: Callable[[str], object], text: str) -> str:
    try:
        read(text)
    except FieldError as error:
        raise argparse.ArgumentTypeError(error.message) from error
    return text


def _complain(message: str) -> None:
    print(f"qrexec-policy-graph: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
