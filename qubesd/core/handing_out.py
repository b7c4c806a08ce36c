"""Devices that come to a qube without a call, because they are assigned to it (``spec/devices.md`` 8)."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from qubesd.core import assignments, device_questions
from qubesd.core.devices import Devices
from qubesd.core.keeper import Keeper
from qubesd.core.lives import Lives
from qubesd.errors import QubesError
from qubesd.model.devices import CLASSES, Device, by_precedence
from qubesd.model.state import Assignment

_log = logging.getLogger(__name__)

_ASK = "ask-to-attach"
_MOST_QUESTIONS = 8
"""Devices of one qube that the user is asked about at a time: it may announce as many as it likes."""


class HandingOut:
    """Gives the devices of one keeper's qubes to those that are to have them."""

    def __init__(self, keeper: Keeper, lives: Lives, devices: Devices) -> None:
        self._keeper = keeper
        self._lives = lives
        self._devices = devices
        self._asked_about: dict[str, set[tuple[str, str]]] = {}
        """By backend, the class and port of each."""
        self.ask: device_questions.Ask = device_questions.nobody
        """How the user is asked where a device may go; whoever can reach an agent sets it."""

    async def came(self, device: Device) -> None:
        """Give a new device to the running qube that is to have it; the user says where there are several."""
        wishes: dict[str, Assignment] = {}
        for name in self._keeper.referrers.of(device.backend):
            if self._keeper.running(name).state == "Running":
                wish = assignments.wish_for(self._keeper.system.qubes[name], device)
                if wish is not None:
                    wishes[name] = wish
        await self._give(device, wishes)

    async def supply(self, name: str) -> None:
        """Give a qube that has started what it is to have and nobody has."""
        qube = self._keeper.system.qubes.get(name)
        if qube is None:
            return
        for devclass in CLASSES:
            for wish in by_precedence(assignments.of_class(qube, devclass)):
                backend = self._keeper.system.qubes.get(wish.backend)
                for device in () if backend is None else await self._devices.exposed(backend, devclass):
                    wished = assignments.wish_for(qube, device) == wish
                    if wished and self._devices.holder(device) is None:
                        await self._give(device, {name: wish})

    async def _give(self, device: Device, wishes: Mapping[str, Assignment]) -> None:
        """Attach the device to the one qube that wishes for it by itself, else have the user asked."""
        if len(wishes) == 1:
            ((name, wish),) = wishes.items()
            if wish.mode != _ASK:
                await self._try(name, device, wish)
                return
        asked_about = self._asked_about.get(device.backend, set())
        if not wishes or (device.devclass, device.port) in asked_about:
            return
        if len(asked_about) >= _MOST_QUESTIONS:
            _log.warning(
                "device %s:%s is left alone: the user is asked about others of that qube",
                device.backend,
                device.port,
            )
            return
        self._asked_about.setdefault(device.backend, set()).add((device.devclass, device.port))
        self._lives.behind(self._ask_and_give(device, wishes))

    async def _ask_and_give(self, device: Device, wishes: Mapping[str, Assignment]) -> None:
        try:
            question = device_questions.question_of(self._keeper, device, tuple(sorted(wishes)))
            name = device_questions.chosen(question, await self.ask(question))
        finally:
            self._answered(device)
        qube = None if name is None else self._keeper.system.qubes.get(name)
        if name is None or qube is None or assignments.wish_for(qube, device) != wishes[name]:
            _log.info("device %s:%s is left alone", device.backend, device.port)
            return
        # The device that was asked about, or none: it is named by its identity too.
        await self._try(name, device, wishes[name])

    def _answered(self, device: Device) -> None:
        asked_about = self._asked_about[device.backend]
        asked_about.discard((device.devclass, device.port))
        if not asked_about:
            del self._asked_about[device.backend]

    async def _try(self, name: str, device: Device, wish: Assignment) -> None:
        try:
            await self._devices.give(self._keeper.system.qubes[name], device, wish)
        except QubesError as error:
            _log.error("qube %r: device %s:%s was not attached: %s", name, device.backend, device.port, error)
