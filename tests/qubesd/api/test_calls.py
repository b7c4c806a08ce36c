"""What the calls answer, and what they refuse, beyond what the transcripts play."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from qubesd.api.method import Command, Text
from qubesd.api.table import INTERNAL
from qubesd.model.state import DOM0_UUID, Value
from tests.qubesd.house import House, visit

SET = "admin.vm.property.Set"


@pytest.mark.parametrize(
    ("words", "want"),
    [
        pytest.param(
            ("admin.vm.property.Get", "work", "template"), "default=False type=vm debian-13", id="vm"
        ),
        pytest.param(("admin.vm.property.Get", "work", "netvm"), "default=True type=vm ", id="none"),
        pytest.param(("admin.vm.property.Get", "work", "nosuch"), "QubesNoSuchPropertyError", id="unknown"),
        pytest.param(("admin.vm.property.GetDefault", "work", "memory"), "type=int 400", id="default"),
        pytest.param(("admin.vm.property.GetDefault", "work", "template"), "", id="no-default"),
        pytest.param(("admin.vm.property.Get", "dom0", "xid"), "QubesNoSuchPropertyError", id="not-dom0s"),
        pytest.param(("admin.property.Get", "dom0", "netvm"), "QubesNoSuchPropertyError", id="no-global"),
        pytest.param((SET, "work", "memory", "x"), "QubesValueError", id="form"),
        pytest.param((SET, "work", "memory", "0"), "QubesPropertyValueError", id="rule"),
        pytest.param((SET, "work", "netvm", "nosuch"), "QubesPropertyValueError", id="unknown-qube"),
        pytest.param((SET, "work", "netvm", "dom0"), "QubesPropertyValueError", id="netvm-dom0"),
        pytest.param((SET, "work", "netvm", "../x"), "QubesValueError", id="no-name"),
        pytest.param((SET, "work", "netvm", f"uuid:{DOM0_UUID}"), "QubesValueError", id="no-uuid"),
        pytest.param(
            ("admin.vm.Create.AppVM", "dom0", f"uuid:{DOM0_UUID}", "name=a label=red"),
            "QubesValueError",
            id="template-no-uuid",
        ),
        pytest.param(
            ("admin.vm.Create.AppVM", "dom0", "debian-13", "name=a label=1"),
            "QubesInvalidLabelError",
            id="create-no-index",
        ),
        pytest.param((SET, "work", "uuid", "x"), "QubesPropertyValueError", id="write-once"),
        pytest.param((SET, "work", "xid", "1"), "QubesPropertyValueError", id="read-only"),
        pytest.param(("admin.vm.property.Reset", "work", "label"), "QubesValueError", id="label-stays"),
        pytest.param(("admin.vm.property.Reset", "work", "template"), "QubesValueError", id="template-stays"),
        pytest.param(("admin.vm.property.Reset", "work", "name"), "QubesPropertyValueError", id="name-stays"),
        pytest.param(("admin.vm.feature.Get", "work", "f"), "QubesFeatureNotFoundError", id="no-feature"),
        pytest.param(("admin.vm.feature.Set", "work", "a+b", "1"), "ProtocolError", id="feature-name"),
        pytest.param(("admin.vm.feature.Set", "work", "f", "a\nb"), "ProtocolError", id="feature-value"),
        pytest.param(("admin.vm.feature.Set", "work", "vm-config.1", "x"), "QubesValueError", id="config"),
        pytest.param(("admin.vm.feature.Set", "dom0", "preload-dispvm", "x"), "PermissionDenied", id="own"),
        pytest.param(("admin.vm.feature.Remove", "dom0", "preload-dispvm"), "PermissionDenied", id="own2"),
        pytest.param(("admin.vm.tag.Set", "work", "a.b"), "QubesInvalidTagError", id="tag-name"),
        pytest.param(("admin.vm.tag.Get", "work", "a.b"), "QubesInvalidTagError", id="tag-name-2"),
        pytest.param(("admin.vm.tag.Get", "work", "a"), "0", id="tag-not-there"),
        pytest.param(("admin.vm.tag.Set", "work", "created-by-nobody"), "", id="origin-unknown"),
        pytest.param(
            ("admin.vm.tag.Set", "work", "created-by-x", "", "sys-net"), "PermissionDenied", id="origin"
        ),
        pytest.param(
            ("admin.vm.tag.Remove", "work", "created-by-dom0", "", "sys-net"),
            "PermissionDenied",
            id="origin-2",
        ),
        pytest.param(
            ("admin.label.Create", "dom0", "teal", "0x00808g"), "QubesInvalidLabelValueError", id="colour"
        ),
        pytest.param(("admin.label.Create", "dom0", "teal", " 0x008080\n"), "", id="colour-stripped"),
        pytest.param(("admin.label.Remove", "dom0", "red"), "ProtocolError", id="built-in"),
        pytest.param(("admin.label.Get", "dom0", "1"), "0xcc0000", id="by-index"),
    ],
)
def test_answer(words: Sequence[str], want: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        before = house.core.system
        answer = await house.call(*words)
        assert answer == want
        if answer.endswith(("Error", "Denied")):
            assert house.core.system is before

    visit(tmp_path, guest)


def test_rows_escape_what_would_break_them(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(SET, "work", "kernelopts", "a\\b\nmemory default=True type=int 1")
        rows = await house.call("admin.vm.property.GetAll", "work")
        line = r"kernelopts default=False type=str a\\b\nmemory default=True type=int 1"
        assert line in rows.split("\n")
        assert rows.count("\nmemory ") == 1

    visit(tmp_path, guest)


def test_list_follows_every_change(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        async def states() -> list[str]:
            return [" ".join(row.split(" ")[:3]) for row in (await house.call("admin.vm.List")).splitlines()]

        assert await states() == [
            "dom0 class=AdminVM state=Running",
            "debian-13 class=TemplateVM state=Halted",
            "sys-net class=AppVM state=Halted",
            "web-dvm class=AppVM state=Halted",
            "work class=AppVM state=Halted",
        ]
        await house.do("admin.vm.Start", "work")
        assert (await states())[-1] == "work class=AppVM state=Running"
        await house.do("admin.vm.Create.RemoteVM", payload="name=Far label=red")
        assert (await states())[1] == "Far class=RemoteVM state=Running"
        await house.do("admin.vm.Remove", "sys-net")
        assert not [row for row in await states() if row.startswith("sys-net ")]
        assert (
            await house.call("admin.vm.List", "work")
            == (await house.call("admin.vm.List")).splitlines(keepends=True)[-1]
        )

    visit(tmp_path, guest)


def system_info(house: House) -> dict[str, dict[str, object]]:
    command = Command("internal.GetSystemInfo", "", house.qube("dom0"), house.qube("dom0"))
    reply = INTERNAL["internal.GetSystemInfo"].handler(house.core, command)
    assert isinstance(reply, Text)
    domains: dict[str, dict[str, object]] = json.loads(reply.content)["domains"]
    return domains


def test_system_info_follows_every_change(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        dom0 = system_info(house)["dom0"]
        assert dom0 == {
            "internal": None,
            "tags": [],
            "type": "AdminVM",
            "template_for_dispvms": False,
            "default_dispvm": None,
            "icon": "appvm-black",
            "label": "0x000000",
            "guivm": None,
            "relayvm": None,
            "transport_rpc": None,
            "power_state": "Running",
            "uuid": "00000000-0000-0000-0000-000000000000",
        }
        await house.do(SET, "work", "label", "blue")
        await house.do("admin.vm.feature.Set", "work", "internal", "1")
        await house.do("admin.vm.tag.Set", "work", "team")
        await house.do("admin.property.Set", "dom0", "default_dispvm", "web-dvm")
        await house.do("admin.vm.Start", "work")
        await house.do("admin.vm.Pause", "work")
        work = system_info(house)["work"]
        want: dict[str, Value] = {
            "internal": "1",
            "label": "0x3465a4",
            "icon": "appvm-blue",
            "default_dispvm": "web-dvm",
            "power_state": "Paused",
            "guivm": "dom0",
        }
        assert {name: work[name] for name in want} == want
        assert "team" in str(work["tags"])
        assert system_info(house)["web-dvm"]["template_for_dispvms"] is True

    visit(tmp_path, guest)


def test_calls_at_once_on_one_qube_all_count(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await asyncio.gather(
            house.do(SET, "work", "memory", "500"),
            house.do(SET, "work", "vcpus", "3"),
            house.do("admin.vm.tag.Set", "work", "team"),
            house.do("admin.vm.feature.Set", "work", "f", ""),
        )
        work = house.qube("work")
        assert (work.properties["memory"], work.properties["vcpus"]) == (500, 3)
        assert "team" in work.tags
        assert work.features == {"f": ""}

    visit(tmp_path, guest)
