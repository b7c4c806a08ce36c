"""A real core in this process, on its own directory and the embedded hypervisor, called as a dispatcher
does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from qubesd.api.method import Command, Method, Reply, Rows, Text
from qubesd.api.table import INTERNAL, METHODS, MISC
from qubesd.config import Config, rooted
from qubesd.core.core import Core
from qubesd.core.device_lists import Watch, unwatched
from qubesd.core.opening import open_core
from qubesd.errors import NoSuchQube, QubesError
from qubesd.events import WireEvent
from qubesd.extension import Extension
from qubesd.extensions.stock import STOCK
from qubesd.model.state import DOM0, Qube
from tests.qubesd.hardware import announce_at_start

KERNEL = "6.1"

Told = tuple[str, str, dict[str, str]]
"""An event: its subject (empty for the system), its name and its keys."""


class House:
    """A core, every event that a stream on dom0 would show since it opened, and a short way to make calls."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.told: list[Told] = []
        core.bus.subscribe(WireEvent, self._note)

    def _note(self, event: WireEvent) -> None:
        if not event.apart:
            self.told.append((event.subject or "", event.wire_name, dict(event.keys())))

    def names(self) -> list[str]:
        """What was told since the last time, each as ``subject name``."""
        names = [f"{subject} {name}".strip() for subject, name, _ in self.told]
        self.told.clear()
        return names

    def qube(self, name: str) -> Qube:
        return self.core.system.qubes[name]

    async def answer(
        self, service: str, target: str = DOM0, argument: str = "", payload: str = "", caller: str = DOM0
    ) -> Reply:
        """Carry out a call; raises what the handler or the parser raises."""
        method: Method = {**METHODS, **INTERNAL, **MISC}[service]
        qube = self.core.system.find(target)
        if qube is None:
            raise NoSuchQube(f"no qube {target!r}")
        value = method.parse(self.core, qube, argument, payload.encode()) if method.parse else None
        reply = method.handler(self.core, Command(service, argument, self.qube(caller), qube, value))
        return await reply if isinstance(reply, Awaitable) else reply

    async def call(self, service: str, *words: str, **by_name: str) -> str:
        """The content of the answer, or the class of the error as it goes over the wire."""
        try:
            reply = await self.answer(service, *words, **by_name)
        except QubesError as error:
            return error.wire_name
        return "".join(reply.rows.values()) if isinstance(reply, Rows) else cast(Text, reply).content

    async def do(self, service: str, *words: str, **by_name: str) -> None:
        """Make a call that succeeds."""
        await self.answer(service, *words, **by_name)

    async def furnish(self) -> None:
        """A template, a netvm, a template for disposables and a qube; as the transcripts name them."""
        await self.do("admin.vm.Create.TemplateVM", payload="name=debian-13 label=black")
        for name in ("work", "sys-net", "web-dvm"):
            await self.do("admin.vm.Create.AppVM", DOM0, "debian-13", f"name={name} label=red")
        await self.do("admin.vm.property.Set", "sys-net", "provides_network", "True")
        await self.do("admin.vm.property.Set", "sys-net", "netvm", "")
        await self.do("admin.vm.property.Set", "web-dvm", "template_for_dispvms", "True")
        self.told.clear()


def config_at(root: Path) -> Config:
    """A configuration below ``root``, with one kernel in name only."""
    config = rooted(root)
    kernel = config.kernels_dir / KERNEL / "vmlinuz"
    kernel.parent.mkdir(parents=True, exist_ok=True)
    kernel.touch()
    return config


@asynccontextmanager
async def house_at(
    root: Path, watch: Watch = unwatched, extensions: Mapping[str, Extension] = STOCK, **settings: Any
) -> AsyncIterator[House]:
    """The house of the system below ``root``, an empty one at first; ``settings`` of its configuration."""
    config = replace(config_at(root), **settings)
    async with open_core(config, create=True, watch=watch, extensions=extensions) as core:
        announce_at_start(root, core.bus)
        yield House(core)


def visit(
    root: Path, guest: Callable[[House], Awaitable[None]], furnished: bool = True, **settings: Any
) -> None:
    """Let ``guest`` do its work in the house below ``root``."""

    async def stay() -> None:
        async with house_at(root, **settings) as house:
            if furnished:
                await house.furnish()
            await guest(house)

    asyncio.run(stay())
