"""Whatever guests announce and whoever attaches, starts and kills what, also at once: what events told is
what there is, and nobody keeps a device that is gone.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from qubesd.core.device_events import DeviceAdded, DeviceAttach, DeviceDetach, DeviceEvent, DeviceRemoved
from qubesd.model.volumes import targets
from tests.qubesd.core.test_devices import announce, settled
from tests.qubesd.hardware import pull_out
from tests.qubesd.house import House, house_at

BLOCK = "admin.vm.device.block"
QUBES = ("sys-net", "work", "web-dvm")
BACKENDS = QUBES[:2]
PORTS = ("sda", "sdb")

NAMES = st.sampled_from(QUBES)
SOURCES = st.sampled_from(BACKENDS)
DEVICES = st.builds("+".join, st.tuples(SOURCES, st.sampled_from(PORTS)))
WISHES = st.one_of(DEVICES, SOURCES.map(lambda name: f"{name}+_+1-1+1.0"))
MODES = st.sampled_from(["auto-attach", "required"]).map(lambda mode: f"mode='{mode}'")
CALLS = st.one_of(
    st.tuples(st.sampled_from(["admin.vm.Start", "admin.vm.Kill"]), NAMES),
    st.tuples(st.sampled_from([f"{BLOCK}.Attach", f"{BLOCK}.Detach"]), NAMES, DEVICES),
    st.tuples(st.just(f"{BLOCK}.Assign"), NAMES, WISHES, MODES),
    st.tuples(st.just(f"{BLOCK}.Unassign"), NAMES, WISHES),
)
LOOKS = SOURCES.map(lambda name: ("look", name))
STEPS = st.lists(st.one_of(CALLS, CALLS, LOOKS), min_size=1, max_size=5)
PARENTS = st.sampled_from([None, "", "1-1:1.0"])


class Lists(RuleBasedStateMachine):
    """``exposed`` and ``attached`` are what a listener believes that heard all events, ``odd`` those that
    made no sense to it."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.root = Path(self._directory.name)
        self._runner = asyncio.Runner()
        self._opening = house_at(self.root)
        self.house: House = self._runner.run(self._opening.__aenter__())
        self._runner.run(self.house.furnish())
        self.exposed: dict[tuple[str, str], str] = {}
        self.attached: dict[tuple[str, str], str] = {}
        self.odd: list[DeviceEvent] = []
        self.house.core.bus.subscribe(DeviceEvent, self._hear)
        self._runner.run(self._begin())

    async def _begin(self) -> None:
        for name in QUBES:
            await self.house.do("admin.vm.Start", name)
        await settled(self.house)

    def teardown(self) -> None:
        self._runner.run(self._opening.__aexit__(None, None, None))
        self._runner.close()
        self._directory.cleanup()

    def _hear(self, event: DeviceEvent) -> None:
        device = (event.backend, event.port)
        match event:
            case DeviceAdded() if device not in self.exposed:
                self.exposed[device] = event.identity
            case DeviceRemoved() if device in self.exposed:
                del self.exposed[device]
            case DeviceAttach() if device not in self.attached:
                self.attached[device] = event.subject
            case DeviceDetach() if self.attached.get(device) == event.subject:
                del self.attached[device]
            case DeviceAdded() | DeviceRemoved() | DeviceAttach() | DeviceDetach():
                self.odd.append(event)

    @rule(backend=SOURCES, port=st.sampled_from(PORTS), parent=PARENTS)
    def plug(self, backend: str, port: str, parent: str | None) -> None:
        """Another device at the port, or none."""
        pull_out(self.root, backend, port)
        if parent is not None:
            announce(self.root, port, backend, parent=parent)

    @rule(steps=STEPS)
    def at_once(self, steps: list[tuple[str, ...]]) -> None:
        self._runner.run(self._do(steps))

    async def _do(self, steps: list[tuple[str, ...]]) -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*map(self._step, steps))
            await settled(self.house)
            for name in BACKENDS:
                await self.house.core.device_lists.look(self.house.qube(name))
            await settled(self.house)
        await self._check()

    async def _step(self, step: tuple[str, ...]) -> None:
        if step[0] == "look":
            await self.house.core.device_lists.look(self.house.qube(step[1]))
        else:
            await self.house.call(*step)

    async def _check(self) -> None:
        devices, core = self.house.core.devices, self.house.core
        there = {
            (device.backend, device.port): device.identity
            for name in BACKENDS
            for device in await devices.exposed(self.house.qube(name), "block")
        }
        assert self.odd == []
        assert self.exposed == there
        held = {}
        for name in QUBES:
            qube = self.house.qube(name)
            for one in devices.attached(qube, "block"):
                device = one.device
                held[device.backend, device.port] = name
                assert there[device.backend, device.port] == device.identity
            if core.running(name).state != "Halted":
                disks = (await core.hypervisor.plugged(qube.uuid)).disks
                own = targets(list(qube.volumes))
                assert {disk for disk in disks if disk.target not in own} == {
                    one.disk for one in devices.attached(qube, "block")
                }
        assert self.attached == held
        for name in BACKENDS:
            assert all(holding.there for holding in devices.held.out_of(name))


TestLists = Lists.TestCase
TestLists.settings = settings(
    max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
