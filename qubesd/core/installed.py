"""The extensions that are installed beside ours, found by their entry points."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Never

from qubesd.core.at_work import AtWork
from qubesd.core.overdue import within
from qubesd.errors import QubesError
from qubesd.extension import GROUP, Extension, on

_log = logging.getLogger(__name__)

_LIMIT = 10.0
"""Seconds that one may take to be imported."""


def installed(stock: Mapping[str, Extension], run_dir: Path) -> dict[str, Extension]:
    """Ours, and those that could be loaded, in the order of their names. What could not is named in the log
    and left out: it vetoes nothing, for nobody knows what it would have asked for. One that was at work when
    an earlier daemon ended is not called: what it vetoes is refused, and so is a backup that it adds to.

    Raises:
        OSError: who is at work cannot be noted in the directory of this boot of the host.
    """
    found = dict(stock)
    at_work = AtWork(run_dir)
    left = at_work.take()
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        what = f"extension {point.name!r} ({point.value})"
        importing = f"import {point.name}"
        try:
            if point.name in found:
                raise ValueError("there is one of this name already")
            if left == importing:
                raise ImportError("the daemon ended while it was imported; the next one tries again")
            with at_work.on(importing):
                extension = within(_LIMIT, point.load)
            if not isinstance(extension, Extension):
                raise TypeError(f"this is no qubesd.extension.Extension but {type(extension).__name__!r}")
        except BaseException as error:
            _log.error("%s is left out: %s", what, repr(error), exc_info=error)
        else:
            if left == point.name:
                _log.error("%s was at work when the daemon before this one ended", what)
                _log.error("extension %r is out of service until the daemon starts again", point.name)
                found[point.name] = _out_of_service(extension)
            else:
                found[point.name] = extension
                _log.info("%s is in use", what)
    return dict(sorted(found.items()))


def _out_of_service(extension: Extension) -> Extension:
    """One that refuses what the other might have refused, and does nothing else."""
    return Extension(
        vetoes=tuple(on(veto.kind, _refuse) for veto in extension.vetoes),
        saved=None if extension.saved is None else _refuse,
    )


def _refuse(view: object, about: object) -> Never:
    raise QubesError("an extension that may refuse this is out of service; the daemon's log says why")
