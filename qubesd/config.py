"""Where everything lies: one TOML file with defaults, or one directory that holds it all."""

from __future__ import annotations

import pwd
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

DEFAULT_FILE = Path("/etc/qubes/qubesd.toml")


class ConfigError(Exception):
    """The configuration cannot be used; the text begins with ``FILE:LINE: ``."""


@dataclass(frozen=True, slots=True)
class Config:
    """Paths, the libvirt URI and the switches of policy; the defaults are the stock places.

    Every field but ``users`` is a key of the same name at the top of the TOML file; ``[users]`` is a table.
    The configuration reference is made of the fields, what is below each, and ``FORMS``.
    """

    qubes_dir: Path = Path("/var/lib/qubes")
    """``qubes.xml``, the folders of the qubes, and the kernels in ``vm-kernels``."""
    run_dir: Path = Path("/var/run")
    """The sockets of dom0: ``qubesd.sock``, ``qubesd.internal.sock``, ``qubesd.misc.sock`` and
    ``qubes/policy.sock``."""
    channels_dir: Path = Path("/var/run/qubes/rpc")
    """The channels of the qubes, ``UUID.sock`` for each."""
    user_socket: Path = Path("/var/run/qubes/user.sock")
    """The socket of the local users, each of whom is judged as the qube that ``users`` gives them."""
    policy_runtime: Path = Path("/run/qubes/policy.d")
    """The policy that is made at run time. A file here hides one of the same name in ``policy_dir``."""
    policy_dir: Path = Path("/etc/qubes/policy.d")
    """The policy that is kept."""
    policy_legacy: Path = Path("/etc/qubes-rpc/policy")
    """The policy in the old form, a file for each service, which ``!compat-4.0`` includes."""
    policy_history: Path = Path("/var/lib/qubes/policy-history")
    """What the policy in ``policy_dir`` was, and who changed it."""
    services_dir: Path = Path("/etc/qubes-rpc")
    """The qrexec services of dom0: ``policy.EvalSimple`` and ``policy.EvalGUI`` of ours, ``policy.Ask`` and
    ``policy.Notify`` of the user's agent."""
    backup_dir: Path = Path("/etc/qubes/backup")
    """The profiles of backups, ``NAME.conf`` each."""
    log_dir: Path = Path("/var/log/qubes")
    """The audit log, ``qubesd-audit.jsonl``."""
    callback_file: Path = Path("/etc/qubes_callback.json")
    """The commands of pools of the driver ``callback``."""
    hypervisor: str = "xen"
    """What runs the qubes; ``test`` is part of the process and runs none."""
    libvirt_uri: str = "xen:///"
    """Where libvirt finds the hypervisor."""
    guest_service: str = ""
    """The command that runs a service as root in a guest, such as ``/usr/bin/qrexec-client -d {qube}
    'root:QUBESRPC {service} dom0'``: words with blanks between them, quoted as for a shell, which there is
    none of. Empty where guests cannot be called: the caller of a resize then reads that the guest was not
    told."""
    socket_group: str = "qubes"
    """The group that may call as dom0; empty for none."""
    channels_owner: str = ""
    """The user, by name or uid, whose process carries the qubes' channels; empty where that is root."""
    visibility: str = "stock"
    """What lists and events show a caller: as ``stock`` Qubes does, or, ``strict``, every row, event and
    value only where its own read is allowed."""
    on_error: str = "deny"
    """While the policy does not load: ``deny`` every judged call, or go on with the ``last-good`` one."""
    trust_qrexec_consent: bool = False
    """Whether another policy daemon is in front of ``qubesd.sock``. It has asked already where the policy
    says ``ask``, and serves ``policy.sock`` and the two ``policy.Eval`` services, which this daemon then
    leaves alone."""
    log_format: str = "text"
    """The daemon's log on standard error: lines of ``text``, or one object of ``json`` each, with the time,
    the number of the call and the part that speaks."""
    audit_size: int = 16
    """MiB after which the audit log is put aside and a new one is begun."""
    audit_files: int = 8
    """How many audit logs that were put aside are kept; they are compressed."""
    audit_days: int = 0
    """Days after which audit records go: a new log is begun each quarter of that time, and one that was put
    aside goes when its newest record is so old. 0 keeps them for as long as there are not too many."""
    users: tuple[tuple[int, str], ...] = ()
    """Local users, by name or uid, and the management qube that the calls of each over ``user_socket`` are
    judged as. Root calls over ``qubesd.sock`` and cannot be mapped."""

    @property
    def store(self) -> Path:
        return self.qubes_dir / "qubes.xml"

    @property
    def store_copies(self) -> Path:
        """Where the store is copied to when a daemon starts."""
        return self.qubes_dir / "backup"

    @property
    def policy_socket(self) -> Path:
        """What the qrexec daemon asks."""
        return self.run_dir / "qubes/policy.sock"

    @property
    def metrics_socket(self) -> Path:
        """What tells figures, over HTTP."""
        return self.run_dir / "qubes/metrics.sock"

    @property
    def kernels_dir(self) -> Path:
        return self.qubes_dir / "vm-kernels"

    @property
    def audit_log(self) -> Path:
        """JSON lines, one for each call; those put aside have ``.1.gz`` (the newest) and so on behind the
        name."""
        return self.log_dir / "qubesd-audit.jsonl"


def rooted(root: Path) -> Config:
    """All of it under one directory, on the embedded hypervisor: for development, tests, several
    instances."""
    return Config(
        qubes_dir=root / "var/lib/qubes",
        run_dir=root / "run",
        channels_dir=root / "run/rpc",
        user_socket=root / "run/user.sock",
        policy_runtime=root / "run/qubes/policy.d",
        policy_dir=root / "etc/qubes/policy.d",
        policy_legacy=root / "etc/qubes-rpc/policy",
        policy_history=root / "var/lib/qubes/policy-history",
        services_dir=root / "etc/qubes-rpc",
        backup_dir=root / "etc/qubes/backup",
        callback_file=root / "etc/qubes_callback.json",
        log_dir=root / "var/log/qubes",
        hypervisor="test",
        libvirt_uri="test:///default",
        socket_group="",
    )


def load(root: Path | None = None, file: Path | None = None) -> Config:
    """The configuration of this start.

    Args:
        root: puts every default under this directory (made absolute); ``None`` for the stock places.
        file: the TOML file to read, which must be there; ``None`` for ``etc/qubes/qubesd.toml`` below the
        root,
            which may be missing.

    Raises:
        ConfigError: the file cannot be read, or something in it cannot be used.
    """
    defaults = Config() if root is None else rooted(root.absolute())
    place = place_of(root, file)
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if file is None:
            return defaults
        raise ConfigError(f"{place}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: cannot be read: {error}") from error
    return parse(text, place, defaults)


def place_of(root: Path | None, file: Path | None) -> Path:
    """The file that ``load`` reads."""
    return file or (DEFAULT_FILE if root is None else root.absolute() / DEFAULT_FILE.relative_to("/"))


def parse(text: str, place: Path, defaults: Config) -> Config:
    """The defaults with what this TOML text says put over them. Raises ``ConfigError``."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
        what, line, column = found.groups() if found else (str(error), None, None)
        where = f"{line or text.count(chr(10)) + 1}: column {column or 1}"
        raise ConfigError(f"{place}:{where}: {what[:1].lower()}{what[1:]}") from error
    kinds = {field.name: type(getattr(defaults, field.name)) for field in fields(Config)}
    values: dict[str, Any] = {}
    for key, value in document.items():
        where = f"{place}:{_line_of(key, text)}"
        if key not in kinds:
            raise ConfigError(f"{where}: unknown key {key!r}")
        if key == "users":
            values[key] = _users(value, text, place)
            continue
        kind = kinds[key]
        wanted = str if issubclass(kind, Path) else kind
        if type(value) is not wanted:
            raise ConfigError(f"{where}: {key!r} must be a {WORDS[wanted]}, found {value!r}")
        form = FORMS.get(key)
        if form is not None and not form.fits(value):
            raise ConfigError(f"{where}: {key!r} must be {form.words}, found {value!r}")
        values[key] = Path(value) if issubclass(kind, Path) else value
    return replace(defaults, **values)


def uid_of(user: str) -> int | None:
    """The id of a user given by name or as digits; ``None`` where there is none of that name."""
    if user.isascii() and user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _line_of(key: str, text: str) -> int:
    """Where a key stands, good enough for a message: 1 where it cannot be found."""
    pattern = re.compile(rf"""\s*(?:\[\s*)?["']?{re.escape(key)}["']?\s*[\]=.]""")
    return next((number for number, line in enumerate(text.split("\n"), 1) if pattern.match(line)), 1)


def _users(table: object, text: str, place: Path) -> tuple[tuple[int, str], ...]:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{place}:{_line_of('users', text)}: 'users' must be a table of users and qubes")
    found: dict[int, str] = {}
    for user, qube in table.items():
        where = f"{place}:{_line_of(user, text)}"
        uid = uid_of(user)
        if uid is None:
            raise ConfigError(f"{where}: no user of the name {user!r} on this machine")
        if uid == 0:
            raise ConfigError(f"{where}: root calls over qubesd.sock and cannot be mapped to a qube")
        if not isinstance(qube, str) or not qube or qube == "dom0":
            raise ConfigError(f"{where}: expected the name of a management qube, found {qube!r}")
        if uid in found:
            raise ConfigError(f"{where}: the user {user!r} is mapped twice")
        found[uid] = qube
    return tuple(sorted(found.items()))


WORDS: Mapping[type, str] = {str: "text", bool: "boolean (true or false)", int: "whole number"}
"""What TOML has for the type of a field, that of a path being text."""


def _absolute(value: str) -> bool:
    return value.startswith("/") and "\0" not in value


def _known_user(value: str) -> bool:
    return not value or uid_of(value) is not None


def _command(value: str) -> bool:
    try:
        shlex.split(value)
    except ValueError:  # a quotation that does not end
        return False
    return not value or (value.startswith("/") and "{qube}" in value and "{service}" in value)


@dataclass(frozen=True, slots=True)
class Form:
    """What a value must be, in words that go on after "must be", and whether one is."""

    words: str
    fits: Callable[[Any], bool]


def _one_of(*words: str) -> Form:
    return Form("one of " + ", ".join(repr(word) for word in words), lambda value: value in words)


def _from_to(low: int, high: int) -> Form:
    return Form(f"from {low} to {high}", lambda value: low <= value <= high)


_PATH = Form("an absolute path", _absolute)

FORMS: Mapping[str, Form] = {
    "hypervisor": _one_of("test", "qemu", "xen"),
    "visibility": _one_of("stock", "strict"),
    "on_error": _one_of("deny", "last-good"),
    "log_format": _one_of("text", "json"),
    "channels_owner": Form("a user of this machine", _known_user),
    "guest_service": Form("empty, or a command with an absolute path, {qube} and {service}", _command),
    "audit_size": _from_to(1, 4096),
    "audit_files": _from_to(1, 1000),
    "audit_days": _from_to(0, 3650),
    **{field.name: _PATH for field in fields(Config) if isinstance(field.default, Path)},
}
"""By key, what a value must be besides being of the type of its field."""
