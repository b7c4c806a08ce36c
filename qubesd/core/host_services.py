"""The services of dom0 itself: a file for each feature ``service.*`` of dom0 that is true, which the units of
dom0 look for (``spec/domains.md`` 4)."""

from __future__ import annotations

import logging
from pathlib import Path

from qubesd.core.keeper import Keeper
from qubesd.disk import why
from qubesd.events import QubeChanged, SystemRestored
from qubesd.model.names import is_feature_name
from qubesd.model.state import DOM0

_log = logging.getLogger(__name__)

_FEATURE = "service."
_UNKNOWN = "\0"
"""In the place of a feature's value: its file is as it was before, and is looked at with the next change."""


class HostServices:
    """Keeps the files in this folder in step with one keeper's dom0; other files there are left alone."""

    def __init__(self, keeper: Keeper, folder: Path) -> None:
        self._keeper = keeper
        self._folder = folder
        self._known: dict[str, str] = {}

    def open(self) -> None:
        """Make the files be as they should, now and from now on."""
        self._keeper.bus.subscribe(QubeChanged, lambda event: self._look(event.subject))
        self._keeper.bus.subscribe(SystemRestored, lambda _: self._look(DOM0))
        self._look(DOM0)

    def _look(self, name: str) -> None:
        if name != DOM0:
            return
        features = self._keeper.system.qubes[DOM0].features
        # A name that ends in a dot would be the folder's own, or that above it.
        now = {
            name.removeprefix(_FEATURE): value
            for name, value in features.items()
            if name.startswith(_FEATURE) and is_feature_name(name) and not name.endswith(".")
        }
        before, self._known = self._known, now
        for service in before.keys() | now.keys():
            if before.get(service) != now.get(service) and not self._show(service, bool(now.get(service))):
                self._known[service] = _UNKNOWN

    def _show(self, service: str, on: bool) -> bool:
        """Whether the file is as it should be now."""
        place = self._folder / service
        try:
            if on:
                self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                place.touch()
            else:
                place.unlink(missing_ok=True)
        except OSError as error:
            _log.error("%s: service %r of dom0 is not shown: %s", self._folder, service, why(error))
            return False
        return True
