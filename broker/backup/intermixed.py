"""Options on either side of what a command is about: ``restore ARCHIVE --exclude work mail``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class Intermixed(argparse.ArgumentParser):
    """A parser that takes options before, between and behind its other arguments, as GNU programs do; that of
    a command can be no other way than by this class."""

    _within = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        if self._within:  # Python up to 3.12 makes two passes of its own by this very method
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False
