"""Starts that fail, meet each other, or are broken off; each leaves what was there before."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from qubesd.core.power_events import DomainStartFailed
from qubesd.errors import NotEnoughMemory, QubeError, QubeNotStarted, QubesError
from qubesd.model.state import Assignment
from qubesd.virt.hypervisor import Domain, DomainSpec
from tests.qubesd.core.power_rig import BEGIN, SPAWN, START, STOP, Rig, faulty, of, play

UP_TO_UNPAUSED = [*BEGIN, *SPAWN]


async def no_memory(spec: DomainSpec) -> Domain:
    raise NotEnoughMemory("not enough memory")


async def silence(uuid: str) -> None:
    await asyncio.Event().wait()


async def refusal(uuid: str) -> None:
    raise QubesError("the hypervisor refused")


def change(r: Rig, name: str, what: str) -> None:
    qube = r.qube(name)
    device = Assignment("pci", "dom0", "00_1f.2")
    changed = {
        "prohibited": lambda: qube.with_feature("prohibit-start", "broken disk"),
        "restoring": lambda: qube.with_tag("backup-restore-in-progress"),
        "device": lambda: replace(qube, assignments=(device,)),
        "template": lambda: qube,
    }
    r.put(changed[what]())
    if what == "template":
        r.change("dvm", template_for_dispvms=False)


@pytest.mark.parametrize(
    ("name", "what", "events", "reason"),
    [
        ("vault", "prohibited", [], "qube 'vault' may not start: broken disk"),
        ("vault", "restoring", BEGIN[:1], "being restored"),
        ("vault", "device", BEGIN[:1], "needs pci device dom0:00_1f.2"),
        ("disp7", "prohibited", [], "broken disk"),
        ("disp7", "template", BEGIN[:1], "'dvm' is no template for disposables any more"),
    ],
)
def test_refused_before_there_is_a_domain(
    tmp_path: Path, name: str, what: str, events: list[str], reason: str
) -> None:
    async def story(r: Rig) -> None:
        change(r, name, what)
        goes = ["domain-pre-delete", "domain-delete"] if name == "disp7" else []
        with pytest.raises(QubesError, match=reason):
            await r.core.power.start(r.qube(name))
        assert r.told() == [*of(name, [*events, "domain-start-failed"]), *goes]
        assert (name in r.core.system.qubes) == (not goes)
        assert await r.core.hypervisor.domains() == {}

    play(tmp_path, story)


def test_false_features_and_optional_devices_forbid_nothing(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        optional = Assignment("pci", "dom0", "00_1f.2", mode="auto-attach")
        r.put(replace(r.qube("vault").with_feature("prohibit-start", ""), assignments=(optional,)))
        await r.core.power.start(r.qube("vault"))
        assert r.told() == of("vault", START)

    play(tmp_path, story)


def test_the_hypervisor_refuses(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        with pytest.raises(NotEnoughMemory):
            await r.core.power.start(r.qube("vault"))
        assert r.told() == of("vault", [*BEGIN, "domain-pre-spawn", "domain-start-failed"])
        assert [event.keys() for event in r.events if isinstance(event, DomainStartFailed)] == [
            (("reason", "not enough memory"),)
        ]
        assert r.state("vault") == "Halted"

    play(tmp_path, story, faulty(create=no_memory))


def test_a_name_that_a_foreign_domain_has(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        foreign = r.outside.defineXML(
            "<domain type='test'><name>vault</name><memory>1024</memory><os><type>hvm</type></os></domain>"
        )
        foreign.create()
        with pytest.raises(QubesError, match="refused"):
            await r.core.power.start(r.qube("vault"))
        assert r.told()[-1] == "vault domain-start-failed"
        assert r.state("vault") == "Halted"
        assert foreign.isActive()

    play(tmp_path, story)


def test_failing_after_the_spawn_takes_the_domain_down(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        with pytest.raises(QubesError, match="refused"):
            await r.core.power.start(r.qube("vault"))
        assert r.told() == of("vault", [*UP_TO_UNPAUSED[:-1], "domain-start-failed", *STOP])
        assert r.state("vault") == "Halted"
        assert not r.domain("vault").isActive()

    play(tmp_path, story, faulty(unpause=refusal))


def test_a_failed_disposable_goes(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        with pytest.raises(QubesError, match="refused"):
            await r.core.power.start(r.qube("disp7"))
        end = ["domain-pre-delete", "domain-delete"]
        assert r.told() == [*of("disp7", [*UP_TO_UNPAUSED[:-1], "domain-start-failed", *STOP]), *end]
        assert await r.core.hypervisor.domains() == {}

    play(tmp_path, story, faulty(unpause=refusal))


def test_a_failed_netvm_fails_what_is_behind_it(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        change(r, "sys-net", "prohibited")
        with pytest.raises(QubesError, match="the netvm of 'work' did not start") as caught:
            await r.core.power.start(r.qube("work"))
        assert "sys-net" not in str(caught.value)
        assert "broken disk" not in str(caught.value)
        assert r.told() == [
            *of("work", BEGIN),
            *of("sys-firewall", BEGIN),
            "sys-net domain-start-failed",
            "sys-firewall domain-start-failed",
            "work domain-start-failed",
        ]

    play(tmp_path, story)


def test_an_agent_that_is_to_answer_and_does(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        r.put(r.qube("debian").with_feature("qrexec", "1"))
        await r.core.power.start(r.qube("vault"))
        assert r.told() == of("vault", START)

    play(tmp_path, story)


def test_an_agent_that_does_not_answer(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        r.put(r.qube("debian").with_feature("qrexec", "1"))
        r.change("vault", qrexec_timeout=1)
        start = asyncio.ensure_future(r.core.power.start(r.qube("vault")))
        await r.until("vault domain-unpaused")
        assert r.state("vault") == "Transient"
        with pytest.raises(QubeError, match="did not answer within 1 seconds"):
            await start
        assert r.told() == of("vault", [*UP_TO_UNPAUSED, "domain-start-failed", *STOP])

    play(tmp_path, story, faulty(answers=silence))


@pytest.mark.parametrize("outside", [False, True])
def test_a_kill_ends_a_start(tmp_path: Path, outside: bool) -> None:
    async def story(r: Rig) -> None:
        r.put(r.qube("debian").with_feature("qrexec", "1"))
        start = asyncio.ensure_future(r.core.power.start(r.qube("vault")))
        await r.until("vault domain-unpaused")
        if outside:
            r.domain("vault").destroy()
        else:
            await r.core.power.kill(r.qube("vault"))
            assert r.state("vault") == "Halted"
        with pytest.raises(QubeError, match="stopped while it was starting"):
            await start
        assert r.told() == of("vault", [*UP_TO_UNPAUSED, "domain-start-failed", *STOP])

    play(tmp_path, story, faulty(answers=silence))


def test_two_starts_start_once(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        work = r.qube("work")
        await asyncio.gather(*(r.core.power.start(work) for _ in range(5)))
        told = r.told()
        for name in ("work", "sys-firewall", "sys-net"):
            assert told.count(f"{name} domain-start") == 1

    play(tmp_path, story)


def test_a_start_waits_for_the_handling_of_a_stop(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        vault = r.qube("vault")
        await r.core.power.start(vault)
        r.told()
        kill = asyncio.ensure_future(r.core.power.kill(vault))
        await r.until("vault domain-stopped")
        await r.core.power.start(vault)
        await kill
        assert r.told() == of("vault", [*STOP, *START])

    play(tmp_path, story)


def test_starts_and_kills_without_order_end_well(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        vault, work = r.qube("vault"), r.qube("work")

        async def kill(name: str) -> None:
            with contextlib.suppress(QubeNotStarted):
                await r.core.power.kill(r.qube(name))

        async def start(name: str) -> None:
            with contextlib.suppress(QubeError):
                await r.core.power.start(r.qube(name))

        storm = [
            act(name) for _ in range(10) for name in ("vault", "work", "sys-net") for act in (start, kill)
        ]
        await asyncio.gather(*storm)
        for name in ("vault", "work", "sys-net", "sys-firewall"):
            await kill(name)
        told = r.told()
        for name in ("vault", "work", "sys-net", "sys-firewall"):
            assert told.count(f"{name} domain-stopped") == told.count(f"{name} domain-shutdown")
            assert told.count(f"{name} domain-spawn") == told.count(f"{name} domain-stopped")
            assert r.state(name) == "Halted"
        await r.core.power.start(vault)
        await r.core.power.start(work)
        assert r.told()[-1] == "work domain-start"

    play(tmp_path, story)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_loop_of_netvms_is_an_error(tmp_path: Path, length: int) -> None:
    """No API call makes one; a file edited by hand might."""

    async def story(r: Rig) -> None:
        ring = ("sys-net", "sys-firewall", "vault")[:length]
        for name, behind in zip(ring, (*ring[1:], ring[0]), strict=True):
            r.change(name, netvm=behind, provides_network=True)
        with pytest.raises(QubeError):
            await r.core.power.start(r.qube("sys-net"))
        assert r.told().count("sys-net domain-start-failed") == 1
        assert {r.state(name) for name in ring} == {"Halted"}
        starts = (r.core.power.start(r.qube(name)) for name in ring)
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
        assert all(isinstance(outcome, QubeError) for outcome in outcomes)

    play(tmp_path, story)


def test_a_long_chain_of_netvms(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        template = r.qube("sys-net")
        for n in range(300):
            chained = replace(
                template,
                name=f"net{n}",
                qid=1000 + n,
                uuid=f"6d2a1ef0-9b5d-4a5c-8b8e-{n:012x}",
                properties={**template.properties, "netvm": f"net{n - 1}" if n else None},
            )
            r.put(chained)
        await r.core.power.start(r.qube("net299"))
        assert {r.state(f"net{n}") for n in range(300)} == {"Running"}

    play(tmp_path, story)


def test_the_domain_is_as_the_properties_say(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        r.put(r.qube("debian").with_feature("boot-mode.kernelopts.safe", "single"))
        r.put(r.qube("work").with_feature("boot-mode.active", "safe"))
        r.change("work", memory=600, vcpus=3, kernelopts="a=b</cmdline><x/>", mac="00:16:3e:5e:6c:77")
        await r.core.power.start(r.qube("work"))
        described = r.domain("work").XMLDesc()
        assert "<memory unit='KiB'>614400</memory>" in described
        assert "<vcpu placement='static'>3</vcpu>" in described
        assert "<cmdline>a=b&lt;/cmdline&gt;&lt;x/&gt; single</cmdline>" in described
        assert "/vm-kernels/6.1/vmlinuz</kernel>" in described
        assert "<mac address='00:16:3e:5e:6c:77'/>" in described
        assert "<backenddomain name='sys-firewall'/>" in described
        r.change("vault", kernel="")
        await r.core.power.start(r.qube("vault"))
        assert "<kernel>" not in r.domain("vault").XMLDesc()

    play(tmp_path, story)
