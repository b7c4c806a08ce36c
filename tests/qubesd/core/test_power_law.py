"""Whatever is done, by calls and past them: states are libvirt's, and the events tell the same story."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import libvirt
from hypothesis import given, settings
from hypothesis import strategies as st

from qubesd.errors import QubesError
from tests.qubesd.core.power_rig import Rig, play

NAMES = ("vault", "sys-net", "sys-firewall", "work")
VERBS = ("start", "shutdown", "kill", "pause", "unpause", "suspend", "resume")
OUTSIDE = ("destroy", "shutdown", "suspend", "resume")

STEPS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from([("call", verb) for verb in VERBS] + [("outside", verb) for verb in OUTSIDE]),
        st.booleans(),
    ),
    max_size=25,
)

WORDS = {
    libvirt.VIR_DOMAIN_RUNNING: "Running",
    libvirt.VIR_DOMAIN_PAUSED: "Paused",
    libvirt.VIR_DOMAIN_SHUTOFF: "Halted",
}
BY_EVENT = {
    "domain-pre-start": "Transient",
    "domain-start": "Running",
    "domain-start-failed": "Halted",
    "domain-paused": "Paused",
    "domain-unpaused": "Running",
    "domain-shutdown": "Halted",
}
"""The only events that a stock client takes power states from (``spec/events.md``, end of 4)."""


def real(r: Rig, name: str) -> str:
    try:
        return WORDS[r.domain(name).state()[0]]
    except libvirt.libvirtError:
        return "Halted"


def told(r: Rig, name: str) -> str:
    """The state that a client follows from the events."""
    state = "Halted"
    for event in r.events:
        if event.subject == name:
            state = BY_EVENT.get(event.wire_name, state)
    return state


async def settled(r: Rig) -> None:
    async with asyncio.timeout(10):
        while any(r.state(name) != real(r, name) for name in NAMES):
            await asyncio.sleep(0.0005)
    # A stop shows before all of it is told: until then its handling holds the lock of the qube's life.
    for name in NAMES:
        async with r.core.power.lives.run(r.qube(name)).lock:
            pass


async def step(r: Rig, name: str, kind: str, verb: str) -> None:
    if kind == "outside":
        with contextlib.suppress(libvirt.libvirtError):
            getattr(r.domain(name), verb)()
    else:
        force = {"force": True} if verb == "shutdown" else {}
        with contextlib.suppress(QubesError):
            await getattr(r.core.power, verb)(r.qube(name), **force)


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_states_and_events_are_one_story(steps: list[tuple[str, tuple[str, str], bool]]) -> None:
    """A step that is not waited for runs into the next ones."""

    async def story(r: Rig) -> None:
        under_way = set()
        for name, (kind, verb), waited in steps:
            task = asyncio.create_task(step(r, name, kind, verb))
            under_way.add(task)
            if waited:
                await asyncio.wait(under_way)
                await settled(r)
        if under_way:
            await asyncio.gather(*under_way)
        await settled(r)
        lines = [f"{event.subject} {event.wire_name}" for event in r.events]
        for name in NAMES:
            assert told(r, name) == r.state(name)
            stops = lines.count(f"{name} domain-stopped")
            assert stops == lines.count(f"{name} domain-shutdown")
            assert lines.count(f"{name} domain-spawn") == stops + (r.state(name) != "Halted")

    with tempfile.TemporaryDirectory() as root:
        play(Path(root), story)
