"""Records of qubes whose files are being made or removed, so that a daemon that ends leaves nothing half.

A record is on the disk before the first file of a new qube, and before the system forgets one that goes; it
is dropped when files and system agree again. Where a record is found at the start, the system tells which it
was: a qube that is there keeps its files, one that is not loses them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from qubesd.disk import sync, why
from qubesd.errors import StoreError
from qubesd.model.names import check_qube_name
from qubesd.model.state import VolumeConfig

_log = logging.getLogger(__name__)

_UNFINISHED = "~"


@dataclass(frozen=True, slots=True)
class Record:
    """What has files: the name and uuid of a qube, and its volumes."""

    name: str
    uuid: str
    volumes: tuple[VolumeConfig, ...]


class Pending:
    """The records in one folder. Every method blocks on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, record: Record) -> None:
        """The qube's files are about to come or to go; durable.

        Raises:
            StoreError: the record cannot be written.
        """
        body = {
            "name": record.name,
            "uuid": record.uuid,
            "volumes": [asdict(volume) for volume in record.volumes],
        }
        place = self._place(record.uuid)
        unfinished = place.with_name(place.name + _UNFINISHED)
        try:
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o700, exist_ok=True)
                sync(self._folder.parent)
            with unfinished.open("w", encoding="ascii") as file:
                json.dump(body, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, place)
            sync(self._folder)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            place.unlink(missing_ok=True)
            raise StoreError(f"{place}: cannot be written, nothing was changed: {why(error)}") from error

    def drop(self, uuid: str) -> bool:
        """Files and system agree; whether the record is gone. It is not synced: one that comes back after a
        loss of power is looked at again, and dropped, at the next start."""
        try:
            self._place(uuid).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s: %s", self._folder, error)
            return False
        return True

    def load(self) -> Iterator[Record]:
        """The records that an earlier daemon left; one that cannot be read is named in the log and stays."""
        if not self._folder.is_dir():
            return
        for place in sorted(self._folder.iterdir()):
            if place.name.endswith(_UNFINISHED):
                place.unlink()
                continue
            try:
                yield _record(json.loads(place.read_bytes()))
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                _log.error("%s: is no record of a qube and is left as it is: %s", place, error)

    def _place(self, uuid: str) -> Path:
        return self._folder / f"{uuid}.json"


def _record(body: Any) -> Record:
    volumes = tuple(VolumeConfig(**each) for each in body["volumes"])
    return Record(check_qube_name(body["name"]), str(UUID(body["uuid"])), volumes)
