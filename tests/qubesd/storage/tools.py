"""What the tools of LVM and ZFS do, as far as the drivers use them; their volumes are files.

These models stand in for tools that need a device mapper or a kernel module. They take the argument lists
that ``lvm(8)`` and ``zfs(8)`` describe for what is wanted here and refuse any other, so that a changed
command is a failing test and not a surprise on somebody's machine.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qubesd.errors import StorageError

EXTENT = 64 << 10
"""Sizes of both are multiples of this; a real volume group's is mostly larger."""


def _grow(file: Path, size: int) -> None:
    with file.open("ab") as opened:
        opened.truncate(size)


def _bytes(text: str) -> int:
    assert text.endswith("b"), text
    assert int(text[:-1]) % 512 == 0, text
    return -(-int(text[:-1]) // EXTENT) * EXTENT


class Tool:
    """What both models share: every call is kept, and one of them can be made to fail."""

    def __init__(self, devices: Path) -> None:
        self.devices = devices
        self.calls: list[tuple[str, ...]] = []
        self.failing: Callable[[tuple[str, ...]], bool] = lambda _: False

    def __call__(self, arguments: Sequence[str], data: bytes = b"") -> bytes:
        call = tuple(arguments)
        self.calls.append(call)
        assert data == b""
        if self.failing(call):
            raise StorageError(f"{call[0]}: failed: as the test wanted it")
        return self.run(call).encode()

    def run(self, call: tuple[str, ...]) -> str:
        raise NotImplementedError


@dataclass
class _Lv:
    number: int
    size: int
    origin: int | None = None


class Lvm(Tool):
    """One volume group ``dom0`` with a thin pool ``thin`` and, beside it, a volume that is not thin."""

    def __init__(self, devices: Path) -> None:
        super().__init__(devices)
        (devices / "dom0").mkdir(parents=True)
        self.volumes: dict[str, _Lv] = {}
        self._made = 0

    def file(self, name: str) -> Path:
        return self.devices / "dom0" / name

    def run(self, call: tuple[str, ...]) -> str:
        match call:
            case ("lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields, "--", "dom0"):
                return self._list(fields.split(","))
            case (
                "lvcreate", "--quiet", "--yes", "--type", "thin", "--thinpool", "thin",
                "--virtualsize", size, "--name", name, "--", "dom0",
            ):  # fmt: skip
                self._add(name, _Lv(self._number(), _bytes(size)))
                _grow(self.file(name), _bytes(size))
            case (
                "lvcreate", "--quiet", "--snapshot", "--setactivationskip", "n", "--activate", "y",
                "--name", name, "--", path,
            ):  # fmt: skip
                source = self._of(path)
                old = self.volumes[source]
                self._add(name, _Lv(self._number(), old.size, old.number))
                shutil.copyfile(self.file(source), self.file(name))
            case ("lvchange", "--quiet", "--activate", "y", "--ignoreactivationskip", "--", path):
                self._of(path)
            case ("lvextend", "--quiet", "--size", size, "--", path):
                name = self._of(path)
                if _bytes(size) <= self.volumes[name].size:
                    raise StorageError("lvextend: failed: New size not larger than existing size")
                self.volumes[name].size = _bytes(size)
                _grow(self.file(name), _bytes(size))
            case ("lvremove", "--quiet", "--force", "--", *paths):
                for path in paths:
                    name = self._of(path)
                    del self.volumes[name]
                    self.file(name).unlink()
            case ("lvrename", "--quiet", "--", "dom0", old_name, new):
                self._add(new, self.volumes[self._of(f"dom0/{old_name}")])
                del self.volumes[old_name]
                self.file(old_name).rename(self.file(new))
            case _:
                raise AssertionError(f"not a command that was checked against lvm(8): {call}")
        return ""

    def _number(self) -> int:
        self._made += 1
        return self._made

    def _add(self, name: str, volume: _Lv) -> None:
        if name in self.volumes:
            raise StorageError(f"lvm: failed: Logical volume {name} already exists")
        self.volumes[name] = volume

    def _of(self, path: str) -> str:
        group, _, name = path.partition("/")
        if group != "dom0" or name not in self.volumes:
            raise StorageError(f"lvm: failed: Failed to find logical volume {path}")
        return name

    def _list(self, fields: Sequence[str]) -> str:
        names = {volume.number: name for name, volume in self.volumes.items()}
        rows = [
            {"lv_name": "thin", "lv_size": 10 * EXTENT, "data_percent": "12.50",
             "lv_metadata_size": EXTENT, "metadata_percent": "25.00"},
            {"lv_name": "swap", "lv_size": EXTENT},
            *(
                {"lv_name": name, "pool_lv": "thin", "lv_size": volume.size, "data_percent": "50.00",
                 "origin": "" if volume.origin is None else names.get(volume.origin, "")}
                for name, volume in self.volumes.items()
            ),
        ]  # fmt: skip
        return json.dumps(
            {"report": [{"lv": [{key: str(row.get(key, "")) for key in fields} for row in rows]}]}
        )


@dataclass
class _Snapshot:
    name: str
    size: int
    data: bytes
    deferred: bool = False


@dataclass
class _Dataset:
    size: int | None = None
    origin: str = "-"
    properties: dict[str, str] = field(default_factory=dict)
    snapshots: list[_Snapshot] = field(default_factory=list)


class Zfs(Tool):
    """A pool ``tank``."""

    def __init__(self, devices: Path) -> None:
        super().__init__(devices)
        self.datasets: dict[str, _Dataset] = {"tank": _Dataset()}

    def file(self, name: str) -> Path:
        return self.devices / name

    def run(self, call: tuple[str, ...]) -> str:
        match call:
            case ("udevadm", "settle", "--timeout=30") | ("zpool", "sync", "tank"):
                return ""
            case ("blkdiscard", "--", device):
                size = Path(device).stat().st_size
                Path(device).write_bytes(b"")
                _grow(Path(device), size)
            case ("zfs", "list", "-H", "-o", "name", name):
                self._of(name)
                return name + "\n"
            case ("zfs", "list", "-Hp", "-o", "used,available", name):
                self._of(name)
                return "1000\t9000\n"
            case ("zfs", "list", "-Hp", "-r", "-t", "volume", "-o", "name,org.qubes:writing", name):
                rows = ((path, volume) for path, volume in self.datasets.items() if volume.size is not None)
                return "".join(
                    f"{path}\t{volume.properties.get('org.qubes:writing', '-')}\n"
                    for path, volume in rows
                    if path.startswith(name + "/")
                )
            case (
                "zfs", "list", "-Hp", "-d", "1", "-t", "volume,snapshot", "-s", "createtxg", "-o",
                "name,volsize,referenced,origin,org.qubes:writing,written,defer_destroy", name,
            ):  # fmt: skip
                return self._look(name)
            case ("zfs", "create", "-p", "-o", "mountpoint=none", name):
                self._add(name, _Dataset())
            case ("zfs", "create", "-p", "-s", "-V", size, name):
                self._add(name, _Dataset(int(size)))
                _grow(self.file(name), int(size))
            case ("zfs", "clone", *options, snapshot, name) if options in ([], ["-p"]):
                found = self._snapshot(snapshot)
                self._add(name, _Dataset(found.size, snapshot))
                self.file(name).write_bytes(found.data)
            case ("zfs", "snapshot", path):
                name, _, short = path.partition("@")
                volume = self._of(name)
                assert volume.size is not None
                assert short not in {known.name for known in volume.snapshots}
                volume.snapshots.append(_Snapshot(short, volume.size, self.file(name).read_bytes()))
            case ("zfs", "rename", old, new):
                self._snapshot(old).name = new.partition("@")[2]
                for each in self.datasets.values():
                    each.origin = new if each.origin == old else each.origin
            case ("zfs", "rollback", *options, path) if options in ([], ["-r"]):
                self._roll_back(path, later=bool(options))
            case ("zfs", "destroy", "-d", path) if "@" in path:
                self._snapshot(path).deferred = True
                self._drop_deferred()
            case ("zfs", "destroy", *options, name) if "@" not in name and options in ([], ["-r"]):
                self._destroy(name, whole=bool(options))
            case ("zfs", "set", assignment, name):
                key, _, value = assignment.partition("=")
                if key == "volsize":
                    self._of(name).size = int(value)
                    with self.file(name).open("r+b") as opened:
                        opened.truncate(int(value))
                else:
                    self._of(name).properties[key] = value
            case ("zfs", "inherit", "org.qubes:writing", name):
                self._of(name).properties.pop("org.qubes:writing", None)
            case _:
                raise AssertionError(f"not a command that was checked against zfs(8): {call}")
        return ""

    def _of(self, name: str) -> _Dataset:
        if name not in self.datasets:
            raise StorageError(f"zfs: failed: cannot open '{name}': dataset does not exist")
        return self.datasets[name]

    def _snapshot(self, path: str) -> _Snapshot:
        name, _, short = path.partition("@")
        return next(found for found in self._of(name).snapshots if found.name == short)

    def _add(self, name: str, dataset: _Dataset) -> None:
        if name in self.datasets:
            raise StorageError(f"zfs: failed: cannot create '{name}': dataset already exists")
        parts = name.split("/")
        for length in range(1, len(parts)):
            self.datasets.setdefault("/".join(parts[:length]), _Dataset())
        self.datasets[name] = dataset
        self.file(name).parent.mkdir(parents=True, exist_ok=True)

    def _drop_deferred(self) -> None:
        """Snapshots that were destroyed while there were clones of them go with the last of those."""
        origins = {found.origin for found in self.datasets.values()}
        for name, found in self.datasets.items():
            found.snapshots = [
                each for each in found.snapshots if not each.deferred or f"{name}@{each.name}" in origins
            ]

    def _roll_back(self, path: str, later: bool) -> None:
        name = path.partition("@")[0]
        found, chosen = self._of(name), self._snapshot(path)
        place = found.snapshots.index(chosen)
        gone = found.snapshots[place + 1 :]
        if gone and not later:
            raise StorageError("zfs: failed: more recent snapshots or bookmarks exist")
        origins = {each.origin for each in self.datasets.values()}
        if origins & {f"{name}@{each.name}" for each in gone}:
            raise StorageError("zfs: failed: clones of previous snapshots exist")
        del found.snapshots[place + 1 :]
        found.size = chosen.size
        self.file(name).write_bytes(chosen.data)

    def _destroy(self, name: str, whole: bool) -> None:
        found = self._of(name)
        inside = [each for each in self.datasets if each.startswith(name + "/")]
        if (inside or found.snapshots) and not whole:
            raise StorageError(f"zfs: failed: cannot destroy '{name}': filesystem has children")
        origins = {each.origin for each in self.datasets.values()}
        if origins & {f"{name}@{each.name}" for each in found.snapshots}:
            raise StorageError(f"zfs: failed: cannot destroy '{name}': volume has dependent clones")
        for each in (*inside, name):
            if self.datasets.pop(each).size is not None:
                self.file(each).unlink()
        self._drop_deferred()

    def _look(self, name: str) -> str:
        found = self._of(name)
        if found.size is None:
            return ""
        data = self.file(name).read_bytes()
        newest = found.snapshots[-1].data if found.snapshots else b""
        writing = found.properties.get("org.qubes:writing", "-")
        rows = [(name, found.size, 512, found.origin, writing, 0 if data == newest else 512, "-")]
        rows += [
            (f"{name}@{each.name}", each.size, 512, "-", writing, 0, "on" if each.deferred else "off")
            for each in found.snapshots
        ]  # a snapshot has the user properties of its volume
        return "".join("\t".join(map(str, row)) + "\n" for row in rows)
