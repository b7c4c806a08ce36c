"""The extensions that are installed beside ours, found by their entry points."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points

from qubesd.core.overdue import within
from qubesd.extension import GROUP, Extension

_log = logging.getLogger(__name__)

_LIMIT = 10.0
"""Seconds that one may take to be imported."""


def installed(stock: Mapping[str, Extension]) -> dict[str, Extension]:
    """Ours, and those that could be loaded, in the order of their names. What could not is named in the log
    and left out: it vetoes nothing, for nobody knows what it would have asked for."""
    found = dict(stock)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        what = f"extension {point.name!r} ({point.value})"
        try:
            if point.name in found:
                raise ValueError("there is one of this name already")
            with within(_LIMIT):
                extension = point.load()
            if not isinstance(extension, Extension):
                raise TypeError(f"this is no qubesd.extension.Extension but {type(extension).__name__!r}")
        except BaseException as error:
            _log.error("%s is left out: %s", what, repr(error), exc_info=error)
        else:
            found[point.name] = extension
            _log.info("%s is in use", what)
    return dict(sorted(found.items()))
