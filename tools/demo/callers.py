"""Calls as dom0 or as any qube of the system, each over the socket that is theirs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from broker import client
from qubesd.config import Config

QUBES = "admin.vm.List"


class Ending(Enum):
    """How a call ended: carried out, denied by policy, or an error of the call itself."""

    DONE = "done"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``text`` is the answer, or the error's class and text."""

    ending: Ending
    text: str


class NoSuchCaller(Exception):
    """There is no qube of that name that could call."""


def socket_of(config: Config, caller: str) -> Path:
    """The socket on which whoever connects is this caller.

    Raises:
        NoSuchCaller: the system has no qube of that name.
    """
    public = config.run_dir / "qubesd.sock"
    if caller == "dom0":
        return public
    uuid = next((row["uuid"] for row in listed(public) if row["name"] == caller), None)
    if uuid is None:
        raise NoSuchCaller(f"no qube {caller!r} to call as; dom0's {QUBES} names them")
    return config.channels_dir / f"{uuid}.sock"


def listed(public: Path) -> list[dict[str, str]]:
    """All qubes, as dom0 sees them."""
    return rows(client.call(public, QUBES).decode("ascii"))


def rows(answer: str) -> list[dict[str, str]]:
    """The lines of ``admin.vm.List`` by their words, the first of which is the name."""
    split = [line.split(" ") for line in answer.splitlines()]
    return [{"name": name, **dict(word.split("=", 1) for word in words)} for name, *words in split]


def attempt(
    path: Path, service: str, target: str = "dom0", argument: str = "", payload: bytes = b""
) -> Outcome:
    """Make a call, whatever comes of it. Raises as ``client.call``, but for errors that are answers."""
    try:
        answer = client.call(path, service, target, argument, payload)
    except client.CallError as error:
        return Outcome(Ending.DENIED if error.refused else Ending.FAILED, str(error))
    return Outcome(Ending.DONE, answer.decode("utf-8", "backslashreplace"))
