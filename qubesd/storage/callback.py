"""``callback``: another driver, with the administrator's commands around its verbs (``spec/storage.md`` 6).

The commands stand in a file of dom0's administrator and are meant for a shell; what is told to them goes as
arguments of their own, never as a part of the line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

from qubesd.errors import StorageError
from qubesd.model.state import PoolConfig, VolumeConfig
from qubesd.storage.commands import Run
from qubesd.storage.pool import Pool, Revision, Space

T = TypeVar("T")

_LARGEST = 1 << 20
"""Bytes of the file that are read."""
_NONE = "-"
_SIGNAL = b"SIGNAL_setup"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the file says under one ``conf_id``; ``text`` is all of that as JSON, which commands are told."""

    id: str
    driver: str
    options: Mapping[str, str]
    command: str | None
    commands: Mapping[str, str]
    signals: bool
    text: str

    def of(self, event: str) -> tuple[str | None, bool]:
        """The command for an event, ``None`` for none; and whether it is the general one."""
        general = event not in self.commands
        command = self.command if general else self.commands[event]
        return (None if command == _NONE else command), general


def load(file: Path, conf_id: str) -> Settings:
    """Read what the file says of this pool.

    Raises:
        StorageError: the file cannot be read, is not what it should be, or says nothing of ``conf_id``.
    """
    try:
        with file.open("rb") as opened:
            found: Any = json.loads(opened.read(_LARGEST))
    except OSError as error:
        raise StorageError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{file}: is not JSON: {error}") from error
    entry = found.get(conf_id) if isinstance(found, dict) else None
    if not isinstance(entry, dict):
        raise StorageError(f"{file}: has no object {conf_id!r}; add it, or use another conf_id")
    options = entry.get("bdriver_args", {})
    if not isinstance(entry.get("bdriver"), str) or not isinstance(options, dict):
        raise StorageError(f"{file}: {conf_id!r} needs a text 'bdriver' and an object 'bdriver_args'")
    events = {key: value for key, value in entry.items() if key.startswith(("pre_", "post_"))}
    for key, value in {"cmd": entry.get("cmd"), **events}.items():
        if value is not None and not isinstance(value, str):
            raise StorageError(f"{file}: {conf_id!r}: {key} must be a command as text")
    return Settings(
        conf_id,
        entry["bdriver"],
        {name: str(value) for name, value in options.items()},
        entry.get("cmd"),
        {key: value for key, value in events.items() if value is not None},
        entry.get("signal_back") is True,
        json.dumps(entry),
    )


class CallbackPool:
    """A pool of another driver, used only after the command ``pre_sinit`` ran.

    Until something needs the pool, it answers as if nothing were in it, and what a qube left uncommitted
    stays so: the wrapped pool may lie on a disk that only the command makes available.

    Args:
        adding: whether the pool is being added now, which ``pre_setup`` is told.
    """

    def __init__(self, config: PoolConfig, settings: Settings, wrapped: Pool, run: Run, adding: bool) -> None:
        self.config = config
        self.directory = wrapped.directory
        self.exports_apart = wrapped.exports_apart
        self._settings = settings
        self._wrapped = wrapped
        self._run = run
        self._adding = adding
        self._ready = False
        self._lock = RLock()

    def open(self) -> None:
        if self._adding:
            self._tell("pre_setup")
            self._wrapped.open()
            self._adding = False

    def close(self) -> None:
        self._wrapped.close()
        self._tell("post_destroy")

    def space(self) -> Space:
        return self._wrapped.space() if self._ready else Space()

    def kernels(self) -> list[str]:
        return self._wrapped.kernels() if self._ready else []

    def vid(self, qube: str, volume: str, template: bool) -> str:
        return self._wrapped.vid(qube, volume, template)

    def check(self, volume: VolumeConfig) -> None:
        self._wrapped.check(volume)

    def verify(self, volume: VolumeConfig) -> None:
        self._used().verify(volume)

    def create(self, volume: VolumeConfig) -> None:
        self._around("volume_create", volume, lambda pool: pool.create(volume))

    def remove(self, volume: VolumeConfig) -> None:
        self._used().remove(volume)
        self._tell("post_volume_remove", volume)

    def start(self, volume: VolumeConfig) -> None:
        self._around("volume_start", volume, lambda pool: pool.start(volume))

    def stop(self, volume: VolumeConfig) -> None:
        if self._ready:
            self._wrapped.stop(volume)
            self._tell("post_volume_stop", volume)

    def is_dirty(self, volume: VolumeConfig) -> bool:
        return self._ready and self._wrapped.is_dirty(volume)

    def is_outdated(self, volume: VolumeConfig) -> bool | None:
        return self._wrapped.is_outdated(volume) if self._ready else False

    def size(self, volume: VolumeConfig) -> int:
        return self._wrapped.size(volume) if self._ready else volume.size

    def usage(self, volume: VolumeConfig) -> int:
        return self._wrapped.usage(volume) if self._ready else 0

    def path(self, volume: VolumeConfig) -> str | None:
        return self._wrapped.path(volume)

    def script(self, volume: VolumeConfig) -> str | None:
        return self._wrapped.script(volume)

    def revisions(self, volume: VolumeConfig) -> list[Revision]:
        return self._wrapped.revisions(volume) if self._ready else []

    def snapshot(self, volume: VolumeConfig) -> str:
        return self._used().snapshot(volume)

    def revert(self, volume: VolumeConfig, revision: str) -> None:
        self._used().revert(volume, revision)

    def resize(self, volume: VolumeConfig, size: int) -> None:
        pool = self._used()
        self._tell("pre_volume_resize", volume, str(size))
        pool.resize(volume, size)

    @contextmanager
    def export(self, volume: VolumeConfig) -> Iterator[Path]:
        pool = self._used()
        self._tell("pre_volume_export", volume)
        with pool.export(volume) as path:
            yield path
        self._tell("post_volume_export_end", volume, str(path))

    def begin_import(self, volume: VolumeConfig, size: int) -> Path:
        pool = self._used()
        self._tell("pre_volume_import_data", volume, str(size))
        return pool.begin_import(volume, size)

    def end_import(self, volume: VolumeConfig, good: bool) -> None:
        self._used().end_import(volume, good)
        self._tell("post_volume_import_data_end", volume, str(good))

    def clone(self, volume: VolumeConfig, source_pool: Pool, source: VolumeConfig) -> None:
        self._around(
            "volume_import", volume, lambda pool: pool.clone(volume, source_pool, source), source.vid
        )

    def tidy(self) -> None:
        """Nothing yet: that comes with the first use."""

    def _used(self) -> Pool:
        """The wrapped pool, ready to be used."""
        with self._lock:
            if not self._ready:
                self._tell("pre_sinit")
                self._wrapped.open()
                self._wrapped.tidy()
                self._ready = True
        return self._wrapped

    def _around(self, event: str, volume: VolumeConfig, verb: Callable[[Pool], T], *extra: str) -> T:
        pool = self._used()
        self._tell(f"pre_{event}", volume, *extra)
        done = verb(pool)
        self._tell(f"post_{event}", volume, *extra)
        return done

    def _tell(self, event: str, volume: VolumeConfig | None = None, *extra: str) -> None:
        """Run the command for an event. Raises ``StorageError`` where it fails."""
        command, general = self._settings.of(event)
        if command is None:
            return
        words: list[str] = []
        if general:
            command += ' "$@"'
            words = [self.config.name, self._settings.driver, event, self._settings.id, self._settings.text]
            if volume is not None:
                words += [volume.name, volume.vid, volume.source or ""]
            words += extra
        said = self._run(["/bin/sh", "-c", command, "qubes-callback", *words], b"")
        if self._settings.signals and _SIGNAL in (line.strip() for line in said.splitlines()):
            self._wrapped.open()
