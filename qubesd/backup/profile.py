"""Profiles of backups: YAML that an administrator of dom0 writes (``spec/backup.md`` 1)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qubesd.backup.filters import check_filter
from qubesd.errors import NoSuchBackupProfile, QubesError
from qubesd.model.state import Qube

_log = logging.getLogger(__name__)

_MOST = 64 * 1024
"""Bytes of a profile."""
LONGEST_PASSPHRASE = 1024
"""Bytes. The scrypt program reads 2047 at most, with what goes ahead of the user's own."""
_NAME = re.compile(r"[A-Za-z0-9_.@:+-]{1,128}", re.ASCII)
_BAD_SCALAR = (ValueError, LookupError, AttributeError, ArithmeticError)
"""What PyYAML raises for text that is none of the kind that its tag says, such as ``!!bool maybe``."""
_KEYS = frozenset(
    {"include", "exclude", "destination_vm", "destination_path", "compression"}
    | {"passphrase_text", "passphrase_vm"}
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What is saved, where to, and how.

    Attributes:
        include: selectors; ``None`` for the qubes with the property ``include_in_backups``.
        compression: the name of the program; ``None`` for none.
        passphrase: the text; ``None`` where the qube ``passphrase_vm`` is asked. Where that is ``None`` as
            well, the profile tells what it would save and no more.
    """

    name: str
    include: tuple[str, ...] | None
    exclude: tuple[str, ...]
    destination_vm: str
    destination_path: str
    compression: str | None
    passphrase: str | None
    passphrase_vm: str | None


def load(folder: Path, name: str) -> Profile:
    """The profile of that name.

    Raises:
        NoSuchBackupProfile: there is no such file.
        QubesError: it cannot be read, or something in it cannot be used; the text says what.
    """
    if _NAME.fullmatch(name) is None:
        raise NoSuchBackupProfile(f"no backup profile {name[:64]!r}: names are letters, digits and '_.@:+-'")
    place = folder / f"{name}.conf"
    try:
        with open(place, "rb", opener=_open) as file:
            text = file.read(_MOST + 1)
    except FileNotFoundError:
        raise NoSuchBackupProfile(f"no backup profile {name[:64]!r}: write {place}") from None
    except OSError as error:
        raise QubesError(f"{place}: cannot be read: {error.strerror}") from error
    if len(text) > _MOST:
        raise QubesError(f"{place}: a profile has at most {_MOST} bytes")
    try:
        return parse(name, text)
    except QubesError as error:
        raise QubesError(f"{place}: {error}") from error


def parse(name: str, text: bytes) -> Profile:
    """The profile that this text is. Raises ``QubesError``; the text says what is wrong."""
    import yaml  # what only reads the method table does without

    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, *_BAD_SCALAR) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        raise QubesError(f"is no YAML{where}: {getattr(error, 'problem', None) or 'mend it'}") from error
    if not isinstance(document, Mapping):
        raise QubesError("expected keys and values, such as 'include:'")
    for key in document.keys() - _KEYS:
        _log.warning("backup profile %r: the key %.64r means nothing and is left out", name, key)
    if "include" not in document:
        raise QubesError("the key 'include' is missing; write 'include: null' for the qubes set to be saved")
    passphrase, passphrase_vm = _passphrase(document)
    return Profile(
        name=name,
        include=_selectors(document, "include"),
        exclude=_selectors(document, "exclude") or (),
        destination_vm=_text(document, "destination_vm"),
        destination_path=_text(document, "destination_path"),
        compression=_compression(document.get("compression", True)),
        passphrase=passphrase,
        passphrase_vm=passphrase_vm,
    )


def selected(qube: Qube, selectors: Iterable[str]) -> bool:
    """Whether one of the selectors means the qube; their old spelling has ``$`` in the place of ``@``."""
    for selector in selectors:
        plain = "@" + selector[1:] if selector.startswith("$") else selector
        if plain.startswith("@tag:"):
            found = plain.removeprefix("@tag:") in qube.tags
        elif plain.startswith("@type:"):
            found = plain.removeprefix("@type:") == qube.klass
        else:
            found = plain == qube.name
        if found:
            return True
    return False


def check_passphrase(text: str, origin: str) -> str:
    """The text, where it can be a passphrase: one line, not empty, not too long.

    Raises:
        QubesError: it cannot; ``origin`` says whose it is.
    """
    if not text or len(text.encode("utf-8", "surrogateescape")) > LONGEST_PASSPHRASE:
        raise QubesError(f"{origin}: a passphrase has 1 to {LONGEST_PASSPHRASE} bytes")
    if any(letter in text for letter in "\n\r\0"):
        raise QubesError(f"{origin}: a passphrase is one line")
    return text


def _open(path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe that somebody has put there."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _passphrase(document: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The text, or the qube to ask; the text comes first where both are given. A profile can be looked at
    that has neither."""
    if document.get("passphrase_text") is not None:
        return check_passphrase(_text(document, "passphrase_text"), "'passphrase_text'"), None
    asked = document.get("passphrase_vm") is not None
    return None, _text(document, "passphrase_vm") if asked else None


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise QubesError(f"{key!r} must be a text; put it in quotes")
    return value


def _selectors(document: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, list):
        raise QubesError(f"{key!r} must be a list of qubes, '@tag:TAG' and '@type:CLASS'")
    for number, one in enumerate(value, 1):
        if not isinstance(one, str):
            # Its own text could be endless: YAML can refer to what it has said.
            raise QubesError(
                f"{key!r} must be a list of texts; put the one that is number {number} in quotes"
            )
        word = one.replace("$", "@", 1)
        if word.startswith("@") and not word.startswith(("@tag:", "@type:")):
            raise QubesError(
                f"{key!r}: {one[:64]!r} selects nothing; use a name, '@tag:TAG' or '@type:CLASS'"
            )
    return tuple(value)


def _compression(value: object) -> str | None:
    if isinstance(value, bool):
        return "gzip" if value else None
    if not isinstance(value, str):
        raise QubesError("'compression' must be true, false or the name of a program")
    return check_filter(value)
