"""What policies are told of a payload is what the handler gets, in one form."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from qubesd.api.method import Command, Reply
from qubesd.api.table import METHODS
from qubesd.api.values import Canonical, Kind, Values
from qubesd.errors import NoSuchLabel
from qubesd.model.devices import CLASSES
from qubesd.model.properties import read, text
from qubesd.model.state import Klass
from tests.qubesd.house import House, visit

SET, SET_GLOBAL = "admin.vm.property.Set", "admin.property.Set"
CREATE, CREATE_IN_POOL = "admin.vm.Create", "admin.vm.CreateInPool"
VOLUME, POOL_VOLUME, POOL = "admin.vm.volume", "admin.pool.volume", "admin.pool"
NEW: Mapping[str, Canonical] = {"name": "a", "label": "red"}


@dataclass(frozen=True)
class Sample:
    """A call, and what it gives by the keys of its payload."""

    service: str
    target: str
    argument: str
    payload: str
    given: Mapping[str, Canonical]


def one(service: str, target: str, argument: str, payload: str, given: Canonical) -> Sample:
    return Sample(service, target, argument, payload, {"": given})


SAMPLES = [
    one(SET, "work", "netvm", "sys-net", "sys-net"),
    one(SET, "work", "netvm", "", None),
    one(SET, "work", "netvm", "nosuch", "nosuch"),
    one(SET, "work", "memory", " 0400\n", 400),
    one(SET, "work", "memory", "-1", -1),
    one(SET, "work", "debug", "on", "True"),
    one(SET, "work", "debug", "FALSE", "False"),
    one(SET, "work", "label", "green", "green"),
    one(SET, "work", "label", "1", "red"),
    one(SET, "work", "label", "label-1", "red"),
    one(SET, "work", "label", "99", "99"),
    one(SET, "work", "kernel", "", None),
    one(SET, "work", "mac", "00:16:3E:5E:6C:AA", "00:16:3e:5e:6c:aa"),
    one(SET_GLOBAL, "dom0", "default_netvm", "sys-net", "sys-net"),
    one(SET_GLOBAL, "dom0", "stats_interval", "+07", 7),
    one("admin.vm.feature.Set", "work", "f", "some words", "some words"),
    one("admin.vm.feature.Set", "work", "f", "", None),
    one("admin.vm.device.denied.Add", "work", "", "u******b******", "b******u******"),
    one("admin.vm.device.denied.Add", "work", "", "", None),
    one("admin.vm.device.denied.Remove", "work", "", "all", "all"),
    one("admin.vm.device.denied.Remove", "work", "", "u******", "u******"),
    one("admin.label.Create", "dom0", "teal", " 0x008080\n", "0x008080"),
    one("admin.vm.CreateDisposable", "web-dvm", "", "", None),
    one("admin.vm.CreateDisposable", "web-dvm", "", "uuid", "uuid"),
    *(
        Sample(f"{CREATE}.{klass}", "dom0", "", "label=red name=a", NEW)
        for klass in Klass
        if klass is not Klass.ADMIN
    ),
    *(
        Sample(f"{CREATE_IN_POOL}.{klass}", "dom0", "", "name=a label=red pool=p", {**NEW, "pool": "p"})
        for klass in Klass
        if klass is not Klass.ADMIN
    ),
    Sample(f"{CREATE_IN_POOL}.AppVM", "dom0", "", "name=a label=red", NEW),
    Sample(
        *(f"{CREATE_IN_POOL}.AppVM", "dom0", "", "name=a pool:private=p label=red pool:root="),
        given={**NEW, "pool:private": "p", "pool:root": None},
    ),
    one(f"{VOLUME}.Revert", "work", "private", " 123\n", "123"),
    one(f"{VOLUME}.Resize", "work", "private", "3000\n", 3000),
    one(f"{VOLUME}.Set.revisions_to_keep", "work", "private", "-1", -1),
    one(f"{VOLUME}.Set.rw", "work", "private", "yes", "True"),
    one(f"{VOLUME}.Set.ephemeral", "work", "volatile", "0", "False"),
    one(f"{POOL}.Set.revisions_to_keep", "dom0", "varlibqubes", "3", 3),
    one(f"{POOL}.Set.ephemeral_volatile", "dom0", "varlibqubes", "off", "False"),
    Sample(f"{POOL}.Add", "dom0", "file", "dir_path=/x\nname=a", {"name": "a", "dir_path": "/x"}),
    Sample(f"{POOL}.Add", "dom0", "file", "name=a\ndir_path=\n", {"name": "a", "dir_path": None}),
    *(
        Sample(
            f"{POOL_VOLUME}.{verb}", "dom0", "varlibqubes", "appvms/x/private\n", {"vid": "appvms/x/private"}
        )
        for verb in ("Info", "ListSnapshots", "Snapshot", "CloneFrom")
    ),
    Sample(f"{POOL_VOLUME}.Revert", "dom0", "varlibqubes", "v 12", {"vid": "v", "revision": "12"}),
    Sample(f"{POOL_VOLUME}.Resize", "dom0", "varlibqubes", "v 12", {"vid": "v", "size": 12}),
    Sample(
        *(f"{POOL_VOLUME}.Set.revisions_to_keep", "dom0", "varlibqubes", "v -1"),
        given={"vid": "v", "revisions_to_keep": -1},
    ),
    *(
        sample
        for service in (f"admin.vm.device.{devclass}" for devclass in CLASSES)
        for sample in (
            Sample(f"{service}.Assign", "work", "sys-net+a", "mode='required'", {"mode": "required"}),
            Sample(f"{service}.Attach", "work", "sys-net+a", "", {"mode": "manual"}),
            one(f"{service}.Set.assignment", "work", "sys-net+a", "ask-to-attach", "ask-to-attach"),
            one(f"{service}.Set.persistent", "work", "sys-net+a", "1", "True"),
            one(f"{service}.Set.required", "work", "sys-net+a", "no", "False"),
        )
    ),
    Sample(
        *("admin.vm.device.block.Attach", "work", "sys-net+a"),
        payload="device_id='x' backend_domain='sys-net' _read-only='on' _devtype='cdrom'",
        given={"mode": "manual", "_read-only": "True", "_devtype": "cdrom"},
    ),
    Sample(
        *("admin.vm.device.block.Attach", "work", "sys-net+a", "_read-only='maybe' _x=''"),
        given={"mode": "manual", "_read-only": "maybe", "_x": None},
    ),
]
KINDS = {str: {Kind.TEXT, Kind.QUBE}, int: {Kind.NUMBER, Kind.MEBIBYTES}, type(None): {Kind.TEXT, Kind.QUBE}}


def command_of(house: House, sample: Sample) -> Command:
    method, target = METHODS[sample.service], house.qube(sample.target)
    assert method.parse is not None
    value = method.parse(house.core, target, sample.argument, sample.payload.encode())
    return Command(sample.service, sample.argument, house.qube("dom0"), target, value)


def canonical(command: Command) -> Mapping[str, Canonical]:
    values = METHODS[command.service].values
    assert isinstance(values, Values)
    return values.canonical(command.value)


async def carry_out(house: House, command: Command) -> Reply:
    reply = METHODS[command.service].handler(house.core, command)
    return await reply if isinstance(reply, Awaitable) else reply


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[Mapping[str, Canonical]]:
    """What each sample gives, in a furnished house."""
    found: list[Mapping[str, Canonical]] = []

    async def guest(house: House) -> None:
        found.extend(canonical(command_of(house, sample)) for sample in SAMPLES)

    visit(tmp_path_factory.mktemp("house"), guest)
    return found


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, id=f"{sample.service.removeprefix('admin.')}-{sample.payload!a}"[:60])
        for number, sample in enumerate(SAMPLES)
    ],
)
def test_canonical_form(number: int, given: list[Mapping[str, Canonical]]) -> None:
    sample = SAMPLES[number]
    assert given[number] == sample.given
    values = METHODS[sample.service].values
    assert isinstance(values, Values)
    form = values.form(sample.argument)
    assert form is not None
    for key, value in given[number].items():
        # An option that its class does not know is in no form, so that no rule grants it.
        assert form.get(key) in KINDS[type(value)] or (key[:1] == "_" and key not in form), key


def test_every_payload_that_policies_can_speak_of_has_a_sample() -> None:
    spoken = {name for name, method in METHODS.items() if isinstance(method.values, Values)}
    assert {sample.service for sample in SAMPLES} == spoken


@pytest.mark.parametrize(
    ("name", "payloads"),
    [
        pytest.param("label", ("green", "1", "label-4"), id="label"),
        pytest.param("netvm", ("sys-net", ""), id="netvm"),
        pytest.param("memory", ("0500", "+600 ", "700"), id="memory"),
        pytest.param("debug", ("yes", "OFF", "1"), id="flag"),
        pytest.param("ip", ("10.0.0.1",), id="ip"),
        pytest.param("mac", ("00:16:3E:00:00:01",), id="mac"),
        pytest.param("keyboard_layout", ("us+a+b",), id="layout"),
        pytest.param("kernel", ("", "6.1"), id="kernel"),
    ],
)
def test_what_was_judged_is_what_is_stored(name: str, payloads: tuple[str, ...], tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        for payload in payloads:
            command = command_of(house, Sample(SET, "work", name, payload, {}))
            judged = canonical(command)[""]
            await carry_out(house, command)
            stored = text(read(house.core, house.qube("work"), name).value)
            assert stored == ("" if judged is None else str(judged))

    visit(tmp_path, guest)


def test_an_index_is_that_label_or_none(tmp_path: Path) -> None:
    """The index was another label's when the call was judged."""

    async def guest(house: House) -> None:
        await house.do("admin.label.Create", "dom0", "granted", "0x008080")
        index = await house.call("admin.label.Index", "dom0", "granted")
        early = command_of(house, Sample(SET, "work", "label", index, {}))
        unknown = command_of(house, Sample(SET, "work", "label", str(int(index) + 1), {}))
        assert canonical(early) == {"": "granted"}
        await house.do("admin.label.Remove", "dom0", "granted")
        for name in ("forbidden", "forbidden-too"):
            await house.do("admin.label.Create", "dom0", name, "0x008080")
        assert await house.call("admin.label.Index", "dom0", "forbidden") == index
        for command in (early, unknown):
            with pytest.raises(NoSuchLabel):
                await carry_out(house, command)
        assert house.qube("work").properties["label"] == "red"

    visit(tmp_path, guest)


def test_a_default_template_is_the_one_that_was_judged(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Create.TemplateVM", payload="name=other label=red")
        await house.do(SET_GLOBAL, "dom0", "default_template", "debian-13")
        command = command_of(house, Sample("admin.vm.Create.AppVM", "dom0", "", "name=a label=red", {}))
        await house.do(SET_GLOBAL, "dom0", "default_template", "other")
        await carry_out(house, command)
        assert house.qube("a").properties["template"] == "debian-13"

    visit(tmp_path, guest)


def test_a_disposable_is_of_the_template_that_was_judged(tmp_path: Path) -> None:
    """The caller sends both calls at once."""

    async def guest(house: House) -> None:
        for name in ("alice", "other-dvm"):
            await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", f"name={name} label=red")
        await house.do(SET, "other-dvm", "template_for_dispvms", "True")
        await house.do(SET, "alice", "default_dispvm", "web-dvm")
        alice, dom0 = house.qube("alice"), house.qube("dom0")
        method = METHODS["admin.vm.CreateDisposable"]
        command = Command(method.name, "", alice, dom0, value=False)
        assert method.touches is not None
        assert method.touches(house.core, command) == ("web-dvm",)
        before = set(house.core.system.qubes)
        making = cast(Awaitable[Reply], method.handler(house.core, command))
        await asyncio.gather(house.do(SET, "alice", "default_dispvm", "other-dvm"), making)
        (made,) = set(house.core.system.qubes) - before
        assert house.qube(made).properties["template"] == "web-dvm"

    visit(tmp_path, guest)
