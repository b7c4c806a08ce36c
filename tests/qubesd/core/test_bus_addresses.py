"""A store of Qubes 4.2 or before on a host of libvirt's test driver, whose card lies behind a bridge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qubesd.errors import StoreError
from qubesd.model.state import Kept
from qubesd.store.xml import dump, load
from tests.e2e.rows.devices import NODES
from tests.qubesd.house import House, config_at, visit
from tests.qubesd.store.versions import STOCK_4_2

PORT = "00_1c.0-00_00.0"
OLD = '<device backend-domain="dom0" id="00_19.0" required="yes">'


def begin(root: Path, *devices: str) -> Path:
    """A store in which ``net`` has these devices and nothing else; returns where it is."""
    config = config_at(root)
    (root / "node.xml").write_text(NODES)
    before, rest = STOCK_4_2.split(OLD)
    config.store.write_text(before + "".join(devices) + rest.partition("</device>")[2])
    return config.store


def stay(root: Path, guest: Callable[[House], Awaitable[None]]) -> None:
    visit(root, guest, furnished=False, libvirt_uri=f"test://{root}/node.xml")


def old(address: str, inside: str = "", **attributes: str) -> str:
    more = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f'<device backend-domain="dom0" id="{address}"{more}>{inside}</device>'


def assigned(house: House) -> list[tuple[str, str, str]]:
    return [(one.port, one.identity, one.mode) for one in house.qube("net").assignments]


@pytest.mark.parametrize(
    ("devices", "want"),
    [
        pytest.param([old("02:00.0")], [(PORT, "*", "required")], id="4.0"),
        pytest.param([old("0000:02:00.0")], [(PORT, "*", "required")], id="segment"),
        pytest.param([old("02_00.0", required="no")], [(PORT, "*", "auto-attach")], id="4.2"),
        pytest.param([old("00_1c.0")], [("00_1c.0", "*", "required")], id="on-the-root-bus"),
        pytest.param([old("03_00.0")], [("03_00.0", "*", "required")], id="not-there"),
        pytest.param(
            [old("*", identity="0x8086:0x0085::p020000")],
            [("*", "0x8086:0x0085::p020000", "required")],
            id="any-port",
        ),
        pytest.param(
            [old("02_00.0"), old(PORT)], [("02_00.0", "*", "required"), (PORT, "*", "required")], id="both"
        ),
    ],
)
def test_what_is_assigned(tmp_path: Path, devices: list[str], want: list[tuple[str, str, str]]) -> None:
    begin(tmp_path, *devices)

    async def guest(house: House) -> None:
        assert assigned(house) == want

    stay(tmp_path, guest)


def test_it_is_written_with_the_next_change(tmp_path: Path) -> None:
    """Not before; and what is kept in the device is in it still."""
    store = begin(tmp_path, old("02:00.0", '<option name="permissive">True</option><seen/>', since="2019"))
    as_it_was = store.read_bytes()

    async def guest(house: House) -> None:
        assert store.read_bytes() == as_it_was
        await house.core.durable()
        assert store.read_bytes() == as_it_was
        await house.do("admin.vm.feature.Set", "net", "x", "1")

    stay(tmp_path, guest)
    net = load(store.read_bytes()).qubes["net"]
    (device,) = net.assignments
    assert (device.port, device.options) == (PORT, {"permissive": "True"})
    assert net.kept == {("devices pci", f"dom0 {PORT} *"): Kept((("since", "2019"),), ("<seen/>",))}
    assert b'since="2019"' in dump(load(store.read_bytes()))


def test_the_qube_starts_with_it(tmp_path: Path) -> None:
    begin(tmp_path, old("02:00.0"))

    async def guest(house: House) -> None:
        net = house.qube("net")
        async with house.core.devices.required(net) as found:
            assert [one.device.data["sbdf"] for one in found] == ["0000:02:00.0"]

    stay(tmp_path, guest)


def test_a_write_that_fails_does_not_bring_the_address_back(tmp_path: Path) -> None:
    store = begin(tmp_path, old("02:00.0"))

    async def guest(house: House) -> None:
        store.write_bytes(store.read_bytes() + b"\n")
        with pytest.raises(StoreError):
            await house.do("admin.vm.feature.Set", "net", "x", "1")
        assert assigned(house) == [(PORT, "*", "required")]

    stay(tmp_path, guest)
