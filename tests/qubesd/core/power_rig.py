"""A core with its life cycle on a real libvirt, and a hand that reaches past it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import libvirt

from qubesd.config import rooted
from qubesd.core.core import NO_EXTENSIONS, Core
from qubesd.events import WireEvent
from qubesd.extension import Extension
from qubesd.model.state import Klass, Qube, System, Value
from qubesd.store.commit import GroupCommit
from qubesd.store.file import FileStore
from qubesd.store.fresh import fresh_system
from qubesd.virt.embedded import Embedded
from qubesd.virt.hypervisor import Hypervisor
from tests.qubesd.hardware import announce_at_start

Wrap = Callable[[Embedded], Hypervisor]

RESETS = ["property-reset:xid", "property-reset:stubdom_xid", "property-reset:start_time"]
BEGIN = ["domain-pre-start", "domain-verify-files"]
SPAWN = [
    "domain-pre-spawn",
    *RESETS,
    "domain-spawn",
    "domain-qdb-create",
    "domain-pre-unpaused",
    "domain-unpaused",
]
START = [*BEGIN, *SPAWN, "domain-start"]
STOP = ["domain-stopped", *RESETS, "domain-shutdown"]


@dataclass
class Rig:
    """``outside`` is libvirt's own handle; ``story`` what a stream on dom0 would show, as ``QUBE EVENT``."""

    core: Core
    outside: Any
    story: list[str] = field(default_factory=list)
    events: list[WireEvent] = field(default_factory=list)

    def note(self, event: WireEvent) -> None:
        self.events.append(event)
        if not event.apart:
            self.story.append(
                event.wire_name if event.subject is None else f"{event.subject} {event.wire_name}"
            )

    def qube(self, name: str) -> Qube:
        return self.core.system.qubes[name]

    def state(self, name: str) -> str:
        return self.core.running(name).state

    def domain(self, name: str) -> Any:
        """libvirt's domain, to do something to it that the core did not ask for."""
        return self.outside.lookupByUUIDString(self.qube(name).uuid)

    def change(self, name: str, **properties: Value) -> None:
        qube = self.qube(name)
        self.put(replace(qube, properties={**qube.properties, **properties}))

    def put(self, qube: Qube) -> None:
        self.core.change(self.core.system.with_qube(qube), [qube.name])

    def told(self) -> list[str]:
        """The story since this was asked last."""
        told, self.story[:] = list(self.story), []
        return told

    async def until(self, line: str) -> None:
        """Wait until the story has that line."""
        async with asyncio.timeout(10):
            while line not in self.story:
                await asyncio.sleep(0.001)


class Faulty:
    """An embedded hypervisor with some verbs that fail, as a sound one's do not."""

    def __init__(self, driver: Embedded, **verbs: Callable[..., Awaitable[Any]]) -> None:
        self._driver = driver
        self._verbs = verbs

    def __getattr__(self, name: str) -> Any:
        return self._verbs.get(name, getattr(self._driver, name))


def faulty(**verbs: Callable[..., Awaitable[Any]]) -> Callable[[Embedded], Any]:
    return lambda driver: Faulty(driver, **verbs)


def of(name: str, events: list[str]) -> list[str]:
    return [f"{name} {event}" for event in events]


def make_system(root: Path) -> System:
    """work -> sys-firewall -> sys-net, a vault, a disposable that goes with its run, a RemoteVM."""
    config = rooted(root)
    kernel = config.kernels_dir / "6.1"
    kernel.mkdir(parents=True, exist_ok=True)
    (kernel / "vmlinuz").touch()
    # The host booted before, and a daemon ran then.
    (config.run_dir / "qubes/running").mkdir(parents=True, exist_ok=True)
    system = fresh_system(config.qubes_dir, config.kernels_dir).with_property("default_kernel", "6.1")
    qubes: list[tuple[str, Klass, dict[str, Value]]] = [
        ("debian", Klass.TEMPLATE, {}),
        ("sys-net", Klass.APP, {"template": "debian", "provides_network": True, "netvm": None}),
        ("sys-firewall", Klass.APP, {"template": "debian", "provides_network": True, "netvm": "sys-net"}),
        ("work", Klass.APP, {"template": "debian", "netvm": "sys-firewall"}),
        ("vault", Klass.APP, {"template": "debian", "netvm": None}),
        ("dvm", Klass.APP, {"template": "debian", "netvm": None, "template_for_dispvms": True}),
        ("disp7", Klass.DISPOSABLE, {"template": "dvm", "netvm": None, "auto_cleanup": True}),
        ("far", Klass.REMOTE, {}),
    ]
    for qid, (name, klass, properties) in enumerate(qubes, start=1):
        dispid = 7 if klass is Klass.DISPOSABLE else None
        identity = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        qube = Qube(name, qid, identity, klass, properties={"label": "red", **properties}, dispid=dispid)
        system = system.with_qube(qube)
    return system


@contextmanager
def stored(root: Path) -> Iterator[FileStore]:
    """The store below ``root``, with the system of these tests in it unless it holds one already."""
    store = FileStore(rooted(root).store)
    try:
        if not store.exists():
            store.path.parent.mkdir(parents=True, exist_ok=True)
            store.save(make_system(root))
        yield store
    finally:
        store.close()


@asynccontextmanager
async def rig(
    root: Path,
    wrap: Wrap = lambda driver: driver,
    uri: str | None = None,
    extensions: Mapping[str, Extension] = NO_EXTENSIONS,
) -> AsyncIterator[Rig]:
    """An open core; ``wrap`` puts something between it and the driver, to make fail what else cannot."""
    node = root / "node.xml"
    node.write_text("<node/>")
    handles: list[Any] = []

    def connect(place: str) -> Any:
        handles.append(libvirt.open(place))
        return handles[-1]

    hypervisor = wrap(Embedded(uri or f"test://{node}", connect))
    with stored(root) as store:
        system = store.load()
        core = Core(rooted(root), system, GroupCommit(store.save, system), hypervisor, extensions=extensions)
        made = Rig(core, None)
        core.bus.subscribe(WireEvent, made.note)
        await core.open()
        announce_at_start(root, core.bus)
        made.outside = handles[0]
        try:
            yield made
        finally:
            await core.close()


def play(root: Path, story: Callable[[Rig], Awaitable[None]], wrap: Wrap = lambda driver: driver) -> None:
    """One story on a core of its own, within a minute."""

    async def whole() -> None:
        async with asyncio.timeout(60), rig(root, wrap) as made:
            await story(made)

    asyncio.run(whole())
