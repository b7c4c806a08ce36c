"""The drivers there are, and what each lets an administrator choose (``spec/storage.md`` 5)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from qubesd.config import Config
from qubesd.errors import BadValue, ProtocolError, QubesError, StorageError
from qubesd.model import forms
from qubesd.model.state import PoolConfig
from qubesd.storage import callback, commands, file, lvm_group, zfs_datasets
from qubesd.storage.callback import CallbackPool
from qubesd.storage.file import FilePool
from qubesd.storage.kernels import KernelPool
from qubesd.storage.lvm import ThinPool
from qubesd.storage.pool import Pool
from qubesd.storage.reflink import ReflinkPool
from qubesd.storage.zfs import ZfsPool


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a driver, as text. ``default`` is ``None`` for one that must be given.

    One that is not ``stored`` is about adding the pool only.
    """

    name: str
    default: str | None = None
    parse: Callable[[str], str] = str
    stored: bool = True


@dataclass(frozen=True, slots=True)
class Environment:
    """What a driver needs of the machine; ``callback_file`` configures the driver ``callback``."""

    callback_file: Path = Config().callback_file
    run: commands.Run = commands.run


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver: its options in the order that ``admin.pool.ListDrivers`` has them, and how to make a pool.

    ``make`` gets the pool's configuration, what was chosen for the options that are not stored, which is
    ``None`` for a pool that was added before, and where it is made.
    """

    options: tuple[Option, ...]
    make: Callable[[PoolConfig, Mapping[str, str] | None, Environment], Pool]
    most_revisions: int | None = None


def _number(untrusted_text: str) -> str:
    return str(forms.integer(untrusted_text.encode()))


def _boolean(untrusted_text: str) -> str:
    return str(forms.boolean(untrusted_text.encode()))


def _directory(untrusted_text: str) -> str:
    if not untrusted_text.startswith("/") or not untrusted_text.isprintable():
        raise BadValue("dir_path must be an absolute path")
    return untrusted_text


def _named(what: str, names: re.Pattern[str]) -> Callable[[str], str]:
    def parse(untrusted_text: str) -> str:
        if not names.fullmatch(untrusted_text):
            raise BadValue(f"{what} is not a name that its tools take")
        return untrusted_text

    return parse


def _wrapping(config: PoolConfig, chosen: Mapping[str, str] | None, environment: Environment) -> Pool:
    """The pool of ``callback``, around one of the driver that its file names."""
    settings = callback.load(environment.callback_file, config.options["conf_id"])
    if settings.driver not in DRIVERS or settings.driver == "callback":
        raise StorageError(
            f"{environment.callback_file}: {settings.id!r}: no driver {settings.driver!r} to wrap"
        )
    _, wrapped = configure(config.name, settings.driver, settings.options, environment)
    return CallbackPool(config, settings, wrapped, environment.run, adding=chosen is not None)


_HERE = Environment()
_CONF_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
_REVISIONS = Option("revisions_to_keep", "1", _number)
_EPHEMERAL = Option("ephemeral_volatile", "False", _boolean)
_DIRECTORY = Option("dir_path", parse=_directory)

DRIVERS: Mapping[str, Driver] = MappingProxyType(
    {
        "file": Driver(
            (_REVISIONS, _DIRECTORY, _EPHEMERAL), lambda config, *_: FilePool(config), file.MOST_REVISIONS
        ),
        "file-reflink": Driver(
            (_REVISIONS, _DIRECTORY, Option("setup_check", "True", _boolean, stored=False), _EPHEMERAL),
            lambda config, chosen, _: ReflinkPool(config, (chosen or {}).get("setup_check") == "True"),
        ),
        "linux-kernel": Driver((_DIRECTORY,), lambda config, *_: KernelPool(config)),
        "lvm_thin": Driver(
            (
                _REVISIONS,
                Option("volume_group", parse=_named("volume_group", lvm_group.NAME)),
                Option("thin_pool", parse=_named("thin_pool", lvm_group.NAME)),
                _EPHEMERAL,
            ),
            lambda config, _, environment: ThinPool(config, environment.run),
        ),
        "zfs": Driver(
            (
                _REVISIONS,
                Option("container", parse=_named("container", zfs_datasets.NAME)),
                _EPHEMERAL,
                Option("snap_on_start_forensics", "False", _boolean),
            ),
            lambda config, _, environment: ZfsPool(config, environment.run),
        ),
        "callback": Driver(
            (Option("conf_id", parse=_named("conf_id", _CONF_ID)),),
            _wrapping,
        ),
    }
)


def configure(
    name: str, driver: str, untrusted_options: Mapping[str, str], environment: Environment = _HERE
) -> tuple[PoolConfig, Pool]:
    """A pool to be added: its configuration, complete and in one form, and the pool, which is not open yet.

    Args:
        driver: a key of ``DRIVERS``.

    Raises:
        ProtocolError: an option that the driver has not.
        QubesError: one that it must have is missing.
        BadValue: a value is not what its option takes.
    """
    table = {option.name: option for option in DRIVERS[driver].options}
    for given in untrusted_options:
        if given not in table:
            raise ProtocolError(f"driver {driver!r} has no such option; admin.pool.ListDrivers shows them")
    stored: dict[str, str] = {}
    chosen: dict[str, str] = {}
    for option in table.values():
        untrusted = untrusted_options.get(option.name, option.default)
        if not untrusted:
            raise QubesError(f"driver {driver!r} needs option {option.name!r}")
        (stored if option.stored else chosen)[option.name] = option.parse(untrusted)
    config = PoolConfig(name, driver, stored)
    check_revisions(config, int(stored.get("revisions_to_keep", "0")))
    return config, DRIVERS[driver].make(config, chosen, environment)


def make(config: PoolConfig, environment: Environment = _HERE) -> Pool:
    """The pool of a stored configuration.

    Raises:
        StorageError: this version has no such driver, or the driver cannot take an option as it stands there.
    """
    driver = driver_of(config)
    for option in driver.options:
        stored = config.options.get(option.name)
        if option.default is None and not stored:
            raise StorageError(f"pool {config.name!r}: option {option.name!r} is missing; mend qubes.xml")
        try:
            option.parse(stored or option.default or "")
        except BadValue as error:
            raise StorageError(
                f"pool {config.name!r}: option {option.name!r}: {error}; mend qubes.xml"
            ) from error
    return driver.make(config, None, environment)


def driver_of(config: PoolConfig) -> Driver:
    """The driver of a pool; ``StorageError`` where this version has no such driver."""
    driver = DRIVERS.get(config.driver)
    if driver is None:
        known = ", ".join(sorted(DRIVERS))
        raise StorageError(f"pool {config.name!r}: there is no driver {config.driver!r}, of {known}")
    return driver


def check_revisions(config: PoolConfig, number: int) -> None:
    """``BadValue`` where volumes of this pool cannot keep so many revisions; -1 is for snapshots disabled."""
    most = driver_of(config).most_revisions
    if number < -1 or (most is not None and number > most):
        limit = "" if most is None else f" and at most {most}"
        raise BadValue(f"revisions_to_keep must be at least -1{limit}")
