"""A view that stands still: a system and what a run would know of it, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from qubesd.model.state import DOM0, DOM0_UUID, Klass, Label, PoolConfig, Qube, System, Value
from qubesd.model.view import Host, Running

LABELS = {name: Label(name, index, "0x000000") for index, name in enumerate(("red", "green", "black"), 1)}


@dataclass(frozen=True)
class StillView:
    """Satisfies ``View``."""

    system: System
    host: Host = field(default_factory=lambda: Host(memory=16000, cpus=4))
    run: Mapping[str, Running] = field(default_factory=dict)
    installed: frozenset[str] = frozenset({"6.12", "6.6"})
    options: Mapping[tuple[str, bool], str] = field(default_factory=dict)

    def running(self, name: str) -> Running:
        return self.run.get(name, Running())

    def kernels(self) -> frozenset[str]:
        return self.installed

    def kernel_options(self, version: str, pci: bool) -> str | None:
        return self.options.get((version, pci))

    def __getitem__(self, name: str) -> Qube:
        return self.system.qubes[name]

    def up(self, *names: str, state: str = "Running") -> StillView:
        """With these qubes running."""
        return replace(self, run={**self.run, **{name: Running(state, 7) for name in names}})

    def put(self, name: str, **properties: Value) -> StillView:
        """With these properties of a qube set."""
        qube = self[name]
        return replace(
            self, system=self.system.with_qube(replace(qube, properties={**qube.properties, **properties}))
        )

    def feature(self, qube: str, name: str, value: str) -> StillView:
        return replace(self, system=self.system.with_qube(self[qube].with_feature(name, value)))

    def globally(self, **properties: Value) -> StillView:
        return replace(self, system=replace(self.system, properties={**self.system.properties, **properties}))


def qube(name: str, qid: int, klass: Klass, dispid: int | None = None, **properties: Value) -> Qube:
    uuid = DOM0_UUID if qid == 0 else f"00000000-0000-4000-8000-{qid:012d}"
    return Qube(name, qid, uuid, klass, {"label": "red", **properties}, dispid=dispid)


def world() -> StillView:
    """One qube of every class, a chain of two netvms, and two further AppVMs."""
    system = System(
        LABELS,
        {
            "varlibqubes": PoolConfig("varlibqubes", "file-reflink", {"dir_path": "/q"}),
            "linux-kernel": PoolConfig("linux-kernel", "linux-kernel", {"dir_path": "/q/vm-kernels"}),
        },
        {"default_pool_kernel": "linux-kernel", "default_kernel": "6.12"},
    )
    for one in (
        qube(DOM0, 0, Klass.ADMIN),
        qube("debian", 1, Klass.TEMPLATE),
        qube("sys-net", 2, Klass.APP, template="debian", provides_network=True, netvm=None),
        qube("sys-firewall", 3, Klass.APP, template="debian", provides_network=True, netvm="sys-net"),
        qube("work", 4, Klass.APP, template="debian", netvm="sys-firewall"),
        qube("web-dvm", 5, Klass.APP, template="debian", template_for_dispvms=True),
        qube("disp7", 6, Klass.DISPOSABLE, 7, template="web-dvm", auto_cleanup=True),
        qube("alone", 7, Klass.STANDALONE),
        qube("far", 8, Klass.REMOTE),
        qube("vault", 9, Klass.APP, template="debian"),
    ):
        system = system.with_qube(one)
    return StillView(system)
