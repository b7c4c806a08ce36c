"""A hidden qube that a call names in any way is not there; one that comes in by a default is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qubesd.api.method import Command, Method, Reply, Text
from qubesd.api.table import METHODS as CALLS
from qubesd.core.core import Core
from qubesd.errors import NoSuchQube
from qubesd.model.state import Assignment, VolumeConfig
from tests.broker.desk import UNGUARDED, Desk, visit
from tests.broker.desk import method as plain

POLICY = """\
test.Touch * alice dom0 allow target=dom0
test.Touch * alice @tag:mine allow target=dom0
admin.vm.device.usb.Assigned * alice @tag:mine allow target=dom0
"""
VOLUME = VolumeConfig("private", "lvm", "vg/vm-theirs-private")


def touch(core: Core, command: Command) -> Reply:
    if "theirs" not in core.system.qubes:
        raise NoSuchQube("no such qube")
    return Text("touched")


def theirs_and_hers(core: Core, command: Command) -> tuple[str, ...]:
    return ("theirs", "hers", "nobody")


METHODS: dict[str, Method] = {
    "test.Touch": replace(plain("test.Touch", touch, UNGUARDED), touches=theirs_and_hers),
}


@pytest.mark.parametrize(
    ("argument", "payload", "there"),
    [
        pytest.param("", b"", True, id="by-default"),
        pytest.param("hers", b"name=hers", True, id="another-is-named"),
        pytest.param("theirs", b"", False, id="argument"),
        pytest.param("theirs+2-1", b"", False, id="backend"),
        pytest.param("", b"uuid:00000003-0000-4000-8000-000000000000", False, id="uuid"),
        pytest.param("", b"mode='manual' frontend_domain='theirs'", False, id="quoted"),
        pytest.param("lvm", b"appvms/theirs/private 3", False, id="path"),
        pytest.param("lvm", b"vg/vm-theirs-private 3", False, id="vid"),
        pytest.param("lvm", b"vg/vm-theirs-private\ndata", False, id="vid-on-a-line"),
        pytest.param("lvm", b"vg/vm-theirs-privately", True, id="another-vid"),
        pytest.param("", b"\xfftheirs\xff", False, id="between-bytes-that-are-no-text"),
    ],
)
def test_what_is_named_and_hidden_is_absent(
    tmp_path: Path, argument: str, payload: bytes, there: bool
) -> None:
    async def call(desk: Desk) -> None:
        system = desk.core.system
        desk.core.change(
            system.with_qube(replace(system.qubes["theirs"], volumes={"private": VOLUME})), ["theirs"]
        )
        answer = await desk.take("test.Touch", "dom0", argument, payload)
        assert isinstance(answer, bytes)
        assert answer.startswith(b"0\0touched" if there else b"2\0QubesVMNotFoundError\0")

    visit(tmp_path, METHODS, call, strict=True, policy=POLICY)


@pytest.mark.parametrize("backend", ["theirs", "nobody"])
def test_how_many_devices_a_hidden_qube_lends_is_not_told(tmp_path: Path, backend: str) -> None:
    """Two assignments of one port are an error that would tell of them."""

    async def call(desk: Desk) -> None:
        system = desk.core.system
        both = tuple(Assignment("usb", "theirs", "1-1", identity) for identity in ("a", "b"))
        desk.core.change(system.with_qube(replace(system.qubes["hers"], assignments=both)), ["hers"])
        answer = await desk.take("admin.vm.device.usb.Assigned", "hers", f"{backend}+1-1")
        assert answer == b"0\0"

    visit(tmp_path, CALLS, call, strict=True, policy=POLICY)
