"""Every qube that a call is about besides its destination is told to whoever judges it."""

from __future__ import annotations

from pathlib import Path

import pytest

from qubesd.api.method import Command, Method
from qubesd.api.table import METHODS
from qubesd.api.values import Names
from qubesd.model.devices import CLASSES
from qubesd.model.properties import GLOBALS, table
from qubesd.model.state import Klass
from tests.qubesd.house import House, visit

SET, RESET = "admin.vm.property.Set", "admin.vm.property.Reset"
SET_GLOBAL, RESET_GLOBAL = "admin.property.Set", "admin.property.Reset"
DEVICE, VOLUME, POOL_VOLUME = "admin.vm.device.usb", "admin.vm.volume", "admin.pool.volume"
DISPOSABLE = "admin.vm.CreateDisposable"
MINE, THEIRS = "appvms/work/private", "appvms/sys-net/private"

TEMPLATE = {
    *(f"admin.vm.{create}.{klass}" for create in ("Create", "CreateInPool") for klass in ("AppVM", "DispVM")),
    DISPOSABLE,
}
BACKEND = {
    f"admin.vm.device.{devclass}.{call}"
    for devclass in CLASSES
    for call in (
        *("Assign", "Unassign", "Attach", "Detach", "Assigned", "Attached"),
        *("Set.assignment", "Set.persistent", "Set.required"),
    )
}
VALUE = {SET, SET_GLOBAL}
DEFAULT = {RESET, RESET_GLOBAL}
SOURCE = {f"{VOLUME}.CloneTo", f"{POOL_VOLUME}.CloneTo"}
OWNER = {name for name in METHODS if name.startswith(f"{POOL_VOLUME}.")} - {f"{POOL_VOLUME}.List"}


def test_the_table_has_all_subjects_of_the_design_and_no_others() -> None:
    told = {name for name, method in METHODS.items() if method.touches is not None}
    assert told == TEMPLATE | BACKEND | VALUE | DEFAULT | SOURCE | OWNER


@pytest.mark.parametrize("method", [pytest.param(method, id=name) for name, method in METHODS.items()])
def test_an_argument_that_names_a_qube_names_a_subject(method: Method) -> None:
    assert (method.names is not Names.NOTHING) is (method.name in (TEMPLATE - {DISPOSABLE}) | BACKEND)


def touched(
    house: House, service: str, target: str, argument: str, payload: str = "", caller: str = "dom0"
) -> set[str]:
    method = METHODS[service]
    assert method.touches is not None
    qube = house.qube(target)
    value = method.parse(house.core, qube, argument, payload.encode()) if method.parse else None
    return set(method.touches(house.core, Command(service, argument, house.qube(caller), qube, value)))


@pytest.mark.parametrize(
    ("service", "target", "argument", "payload", "want"),
    [
        pytest.param(SET, "work", "netvm", "nosuch", {"nosuch"}, id="netvm-not-there"),
        pytest.param(SET, "work", "netvm", "", set(), id="netvm-none"),
        pytest.param(SET, "work", "label", "red", set(), id="label"),
        pytest.param(SET, "work", "default_user", "sys-net", set(), id="text-like-a-name"),
        pytest.param(SET, "work", "template", "debian-13", {"debian-13"}, id="template"),
        pytest.param(RESET, "work", "netvm", "", {"sys-net"}, id="reset-netvm"),
        pytest.param(RESET, "work", "management_dispvm", "", {"web-dvm"}, id="reset-to-the-templates"),
        pytest.param(RESET, "work", "audiovm", "", {"dom0"}, id="reset-to-dom0"),
        pytest.param(RESET, "work", "memory", "", set(), id="reset-number"),
        pytest.param(RESET_GLOBAL, "dom0", "default_guivm", "", {"dom0"}, id="reset-global"),
        pytest.param(RESET_GLOBAL, "dom0", "default_template", "", set(), id="reset-without-default"),
        pytest.param("admin.vm.Create.AppVM", "dom0", "x", "name=a label=red", {"x"}, id="given"),
        pytest.param("admin.vm.Create.AppVM", "dom0", "", "name=a label=red", {"debian-13"}, id="default"),
        pytest.param("admin.vm.Create.DispVM", "dom0", "", "name=a label=red", {"web-dvm"}, id="dispvm"),
        pytest.param("admin.vm.CreateInPool.AppVM", "dom0", "", "name=a label=red", {"debian-13"}, id="pool"),
        pytest.param(DISPOSABLE, "dom0", "", "", {"web-dvm"}, id="disposable"),
        pytest.param(DISPOSABLE, "dom0", "preload", "", {"web-dvm"}, id="preloading"),
        pytest.param(DISPOSABLE, "web-dvm", "", "", {"web-dvm"}, id="disposable-of-destination"),
        pytest.param(f"{DEVICE}.Attach", "work", "dom0+1-1", "", {"dom0"}, id="backend"),
        pytest.param(f"{DEVICE}.Assigned", "work", "sys-net+1-1", "", {"sys-net"}, id="asked-backend"),
        pytest.param(f"{DEVICE}.Assigned", "work", "", "", set(), id="all-assigned"),
        pytest.param(f"{POOL_VOLUME}.Info", "dom0", "varlibqubes", MINE, {"work"}, id="owner"),
        pytest.param(f"{POOL_VOLUME}.Import", "dom0", "varlibqubes", f"{MINE}\nx", {"work"}, id="import"),
        pytest.param(f"{POOL_VOLUME}.Info", "dom0", "varlibqubes", "none", set(), id="no-owner"),
        pytest.param(f"{POOL_VOLUME}.Info", "dom0", "varlibqubes", "", set(), id="no-vid"),
    ],
)
def test_touched(
    service: str, target: str, argument: str, payload: str, want: set[str], tmp_path: Path
) -> None:
    async def guest(house: House) -> None:
        await house.do(SET_GLOBAL, "dom0", "default_template", "debian-13")
        await house.do(SET_GLOBAL, "dom0", "default_netvm", "sys-net")
        await house.do(SET_GLOBAL, "dom0", "default_dispvm", "web-dvm")
        await house.do(SET, "debian-13", "management_dispvm", "web-dvm")
        assert touched(house, service, target, argument, payload) == want

    visit(tmp_path, guest)


def test_a_property_that_names_a_qube_is_a_subject_in_every_class(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.Create.DispVM", "dom0", "web-dvm", "name=disp label=red")
        await house.do("admin.vm.Create.RemoteVM", payload="name=far label=red")
        await house.do("admin.vm.Create.StandaloneVM", payload="name=alone label=red")
        qubes = [house.qube(name) for name in ("dom0", "debian-13", "work", "alone", "disp", "far")]
        assert {qube.klass for qube in qubes} == set(Klass)
        for qube in qubes:
            for line in table(qube.klass).values():
                if line.type == "vm":
                    assert touched(house, SET, qube.name, line.name, "other") == {"other"}
        for line in GLOBALS.values():
            if line.type == "vm":
                assert touched(house, SET_GLOBAL, "dom0", line.name, "other") == {"other"}

    visit(tmp_path, guest)


def test_a_disposable_asked_of_dom0_is_of_what_the_caller_has(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        assert touched(house, DISPOSABLE, "dom0", "", caller="work") == set()
        await house.do(SET, "work", "default_dispvm", "web-dvm")
        assert touched(house, DISPOSABLE, "dom0", "", caller="work") == {"web-dvm"}

    visit(tmp_path, guest)


@pytest.mark.parametrize(
    ("service", "target", "argument", "payload", "owner"),
    [
        pytest.param(f"{VOLUME}.CloneTo", "work", "private", "{token}", set[str](), id="volume"),
        pytest.param(
            f"{POOL_VOLUME}.CloneTo", "dom0", "varlibqubes", f"{MINE} {{token}}", {"work"}, id="pool"
        ),
    ],
)
def test_the_source_of_a_clone_is_known_by_its_token(
    service: str, target: str, argument: str, payload: str, owner: set[str], tmp_path: Path
) -> None:
    async def guest(house: House) -> None:
        for giving, given in (
            (f"{VOLUME}.CloneFrom", ("sys-net", "private", "")),
            (f"{POOL_VOLUME}.CloneFrom", ("dom0", "varlibqubes", THEIRS)),
        ):
            token = await house.call(giving, *given)
            call = (service, target, argument, payload.format(token=token))
            assert touched(house, *call) == owner | {"sys-net"}
            assert touched(house, *call, caller="work") == owner, "it is good for nobody else"

    visit(tmp_path, guest)


CHANGES = [
    (SET, "work", "netvm", "sys-net"),
    (SET, "work", "template", "other-tpl"),
    (SET, "work", "default_dispvm", "web-dvm"),
    (SET, "work", "label", "2"),
    (SET, "work", "provides_network", "True"),
    (RESET, "work", "netvm", ""),
    (SET_GLOBAL, "dom0", "clockvm", "work"),
    (SET_GLOBAL, "dom0", "default_netvm", "sys-net"),
    ("admin.vm.feature.Set", "work", "f", "sys-net"),
    ("admin.vm.feature.Remove", "work", "f", ""),
    ("admin.vm.tag.Set", "work", "sys-net", ""),
    ("admin.vm.tag.Remove", "work", "sys-net", ""),
    ("admin.vm.device.denied.Add", "work", "", "u******"),
    ("admin.vm.device.usb.Assign", "work", "sys-net+1-1", "mode='auto-attach'"),
    ("admin.vm.device.usb.Set.assignment", "work", "sys-net+1-1", "ask-to-attach"),
    ("admin.vm.device.usb.Unassign", "work", "sys-net+1-1", ""),
    ("admin.vm.volume.Resize", "work", "private", str(3 << 30)),
    ("admin.vm.volume.Set.revisions_to_keep", "work", "private", "3"),
    (f"{POOL_VOLUME}.Resize", "dom0", "varlibqubes", f"{MINE} {4 << 30}"),
    (f"{POOL_VOLUME}.Set.revisions_to_keep", "dom0", "varlibqubes", f"{MINE} 4"),
    ("admin.vm.Create.AppVM", "dom0", "debian-13", "name=new label=red"),
    ("admin.vm.Create.DispVM", "dom0", "web-dvm", "name=new-disp label=red"),
    (DISPOSABLE, "web-dvm", "", ""),
    ("admin.vm.Remove", "new", "", ""),
]


def test_what_a_call_changes_is_among_its_subjects(tmp_path: Path) -> None:
    """The record of every other qube is the same afterwards."""

    async def guest(house: House) -> None:
        await house.do("admin.vm.Create.TemplateVM", payload="name=other-tpl label=red")
        for service, target, argument, payload in CHANGES:
            before = house.core.system.qubes
            method = METHODS[service]
            subjects = {target}
            if method.touches is not None:
                subjects |= touched(house, service, target, argument, payload)
            await house.do(service, target, argument, payload)
            after = house.core.system.qubes
            changed = {name for name in before if after.get(name) is not before[name]}
            assert changed <= subjects, service
            assert after is not before or service.startswith("admin.property."), service

    visit(tmp_path, guest)
