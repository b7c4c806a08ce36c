"""What a profile selects of the system as it is, and how the archive's ``qubes.xml`` tells of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qubesd.backup import home
from qubesd.backup.profile import Profile, selected
from qubesd.core import folders
from qubesd.core.backup_files import OWN
from qubesd.core.keeper import Keeper
from qubesd.core.storage import Storage
from qubesd.errors import QubesError
from qubesd.model.properties import read
from qubesd.model.state import Klass, Qube, System, VolumeConfig

CONTENT, PATH, SIZE = "backup-content", "backup-path", "backup-size"
"""The features that the archive adds to each qube (``spec/backup.md`` 3.5)."""

_PRELOADED, _PRELOADED_MOST = "preload-dispvm", "preload-dispvm-max"


@dataclass(frozen=True, slots=True)
class Content:
    """What is saved of one qube.

    Attributes:
        path: the folder in the archive.
        files: the small files, by name, as they are in its folder.
        added: the files that extensions add, by name.
        trouble: why it cannot be saved; empty where it can.
        home: of dom0; ``None`` for every other qube.
        size: what it takes on the disk now, in bytes.
    """

    qube: Qube
    path: str
    volumes: tuple[VolumeConfig, ...] = ()
    files: tuple[tuple[str, Path], ...] = ()
    added: tuple[tuple[str, Path], ...] = ()
    trouble: str = ""
    home: Path | None = None
    size: int = 0


def chosen(keeper: Keeper, profile: Profile) -> list[Qube]:
    """The qubes that the profile selects, in the order of every list. A name that no qube has selects
    none."""
    return [qube for qube in keeper.system.in_order() if _is_chosen(keeper, profile, qube)]


def check_complete(keeper: Keeper, profile: Profile) -> None:
    """``QubesError`` where a qube that the profile names is not there, or no passphrase is to be had."""
    if profile.passphrase is None and profile.passphrase_vm is None:
        raise QubesError(
            f"backup profile {profile.name!r}: one of 'passphrase_text' and 'passphrase_vm' is needed"
        )
    named = [one for one in (*(profile.include or ()), *profile.exclude) if one[:1] not in "@$"]
    named += [profile.destination_vm, *filter(None, [profile.passphrase_vm])]
    for name in named:
        if name not in keeper.system.qubes:
            raise QubesError(f"backup profile {profile.name!r}: no qube {name[:64]!r}; mend the profile")


async def content_of(keeper: Keeper, storage: Storage, qubes: Iterable[Qube]) -> list[Content]:
    """What of these qubes would be saved. dom0 is left out where it has no home to save."""
    found = []
    for qube in qubes:
        if qube.klass is not Klass.ADMIN:
            content = _with_added(keeper, Content(qube, f"vm{qube.qid}/"))
            found.append(await storage.work(_filled, keeper, storage, content))
            continue
        place = await storage.work(home.home_in_group, keeper.config.socket_group)
        if place is not None:
            size = await storage.work(home.used, place)
            found.append(Content(qube, f"{home.FOLDER}/{place.name}", home=place, size=size))
    return found


def described(system: System, contents: Iterable[Content]) -> System:
    """The whole system as the archive has it, those qubes marked that are in it."""
    inside = {content.qube.name: content for content in contents}
    qubes = {name: _marked(qube, inside.get(name)) for name, qube in system.qubes.items()}
    return replace(system, qubes=qubes)


def _is_chosen(keeper: Keeper, profile: Profile, qube: Qube) -> bool:
    if selected(qube, profile.exclude):
        return False
    if profile.include is not None:
        return selected(qube, profile.include)
    return read(keeper, qube, "include_in_backups").value is True


def _with_added(keeper: Keeper, content: Content) -> Content:
    try:
        return replace(content, added=tuple(keeper.added(content.qube).items()))
    except QubesError as error:
        return replace(content, trouble=str(error))


def _filled(keeper: Keeper, storage: Storage, content: Content) -> Content:
    """With what the disk has of it."""
    qube = content.qube
    volumes = tuple(volume for volume in storage.volumes(qube) if volume.save_on_stop)
    places = ((name, folders.place(keeper.config, qube, name)) for name in OWN)
    files = tuple((name, place) for name, place in places if place.exists())
    size = sum(storage.pool(volume.pool).usage(volume) for volume in volumes)
    size += sum(place.stat().st_size for _, place in files)
    size += sum(_size(place) for _, place in content.added)
    return replace(content, volumes=volumes, files=files, size=size)


def _size(added: Path) -> int:
    """Bytes of a file that an extension adds; none where it is not there, which the backup itself tells."""
    try:
        return added.stat().st_size
    except OSError:
        return 0


def _marked(qube: Qube, content: Content | None) -> Qube:
    features: Mapping[str, str] = {**qube.features, CONTENT: ""}
    if content is not None:
        kept = (
            (name, value)
            for name, value in qube.features.items()
            if name == _PRELOADED_MOST or not name.startswith(_PRELOADED)
        )
        features = {**dict(kept), CONTENT: "1", PATH: content.path, SIZE: str(content.size)}
    return replace(qube, features=features)
