"""Asking the user to which qube a device may go (``spec/devices.md`` 8)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from qubesd.core.keeper import Keeper
from qubesd.model.devices import Device
from qubesd.model.properties import read, table
from qubesd.model.state import DOM0, Klass

_log = logging.getLogger(__name__)

_ALLOW = "allow:"


@dataclass(frozen=True, slots=True)
class Question:
    """What the user is asked: ``screen`` is the GUI qube, ``argument`` the port."""

    screen: str
    source: str
    device_name: str
    argument: str
    targets: tuple[str, ...]
    icons: Mapping[str, str]

    @property
    def default_target(self) -> str:
        """The one target there is; empty where the user has to choose."""
        return self.targets[0] if len(self.targets) == 1 else ""


Ask = Callable[[Question], Awaitable[str | None]]
"""The answer of the user's agent, as it came; ``None`` where it could not be asked."""


async def nobody(question: Question) -> str | None:
    """Ask nobody."""
    _log.warning("device %s:%s: there is nobody to ask", question.source, question.argument)
    return None


def question_of(keeper: Keeper, device: Device, targets: tuple[str, ...]) -> Question:
    """Whether, and to which of these qubes, the device goes."""
    dom0 = keeper.system.qubes[DOM0]
    screen = read(keeper, dom0, "guivm").value if "guivm" in table(Klass.ADMIN) else DOM0
    named = (keeper.system.qubes[name] for name in (device.backend, *targets))
    icons = {qube.name: str(read(keeper, qube, "icon").value) for qube in named}
    return Question(str(screen or DOM0), device.backend, device.description, device.port, targets, icons)


def chosen(question: Question, untrusted_answer: str | None) -> str | None:
    """The target that the user allowed; ``None`` where it is none of those that were asked about."""
    name = (untrusted_answer or "").rstrip("\n")
    found = name.removeprefix(_ALLOW) if name.startswith(_ALLOW) else None
    return found if found in question.targets else None
