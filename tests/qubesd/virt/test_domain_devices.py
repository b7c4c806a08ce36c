"""What a domain has is read back from its description, as we write it and as others do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubesd.errors import QubesError
from qubesd.virt.domain_devices import plugged
from qubesd.virt.domain_xml import domain_xml
from qubesd.virt.embedded import Embedded
from qubesd.virt.hypervisor import Disk, DomainSpec, Plugged

SPEC = DomainSpec("work", "6d2a1ef0-9b5d-4a5c-8b8e-0123456789ab", "pvh", 400, 400, 1)
DISKS = (
    Disk("/dev/a/root", "xvda", rw=False),
    Disk("/dev/sr0", "xvdd", rw=False, backend="sys-usb", cdrom=True),
    Disk("/dev/sda", "xvdi", rw=True, backend="sys-usb"),
)
"""In the order of their targets, in which libvirt puts them."""
PCI = ("0000:00:1f.2", "0001:3a:00.0")

WORDS = st.text("abcxyz/-.0<&'\"", min_size=1, max_size=12)
ADDRESSES = st.tuples(*(st.integers(0, most) for most in (0xFFFF, 0xFF, 0x1F, 7))).map(
    lambda numbers: "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)
)


@given(
    st.lists(st.builds(Disk, WORDS, WORDS, st.booleans(), st.none(), st.none() | WORDS, st.booleans())),
    st.lists(ADDRESSES),
)
def test_what_is_written_is_read(disks: Sequence[Disk], pci: Sequence[str]) -> None:
    document = domain_xml(replace(SPEC, disks=tuple(disks), pci=tuple(pci)), "xen")
    assert plugged(document) == Plugged(tuple(disks), tuple(pci))


@pytest.mark.parametrize(
    ("devices", "want"),
    [
        pytest.param("", Plugged(), id="nothing"),
        pytest.param("<devices/>", Plugged(), id="no-devices"),
        pytest.param(
            "<devices><disk type='file'><source file='/x.img'/><target dev='vda'/></disk></devices>",
            Plugged((Disk("/x.img", "vda", rw=True),)),
            id="file",
        ),
        pytest.param(
            "<devices><disk><target dev='hda'/></disk><disk><source dev='/x'/></disk></devices>",
            Plugged(),
            id="empty-drive-and-no-target",
        ),
        pytest.param(
            "<devices><hostdev type='usb'><source><address bus='1' device='2'/></source></hostdev></devices>",
            Plugged(),
            id="other-host-device",
        ),
        pytest.param(
            "<devices><hostdev type='pci'><source><address domain='x' bus='0'/></source></hostdev></devices>",
            Plugged(),
            id="no-address",
        ),
        pytest.param(
            "<devices><hostdev type='pci'><source><address domain='0x0000' bus='0x02' slot='0x1f'"
            " function='0x7'/></source><address type='pci' bus='9'/></hostdev></devices>",
            Plugged((), ("0000:02:1f.7",)),
            id="address-on-the-host",
        ),
    ],
)
def test_descriptions_of_others(devices: str, want: Plugged) -> None:
    assert plugged(f"<domain>{devices}</domain>") == want


def test_libvirt_gives_back_what_it_was_given(tmp_path: Path) -> None:
    """A driver that did not make the domain reads its description; what is plugged in later is known too."""
    file = tmp_path / "node.xml"
    spec = replace(SPEC, disks=DISKS, pci=PCI)
    namespace = "xmlns:t='http://libvirt.org/schemas/domain/test/1.0'"
    inside = domain_xml(spec, "test").replace("<domain ", f"<domain {namespace} ")
    inside = inside.replace("<name>", "<t:runstate>1</t:runstate><name>", 1)
    file.write_text(f"<node>{inside}</node>")

    async def story() -> None:
        driver = Embedded(f"test://{file}")
        await driver.open(lambda change: None, lambda: None)
        try:
            assert await driver.plugged(SPEC.uuid) == Plugged(DISKS, PCI)
            with pytest.raises(QubesError, match="xvdi already"):
                await driver.attach_disk(SPEC.uuid, DISKS[2])
            await driver.detach_disk(SPEC.uuid, "xvdi")
            await driver.detach_pci(SPEC.uuid, PCI[1])
            assert await driver.plugged(SPEC.uuid) == Plugged(DISKS[:2], PCI[:1])
            await driver.destroy(SPEC.uuid)
            with pytest.raises(QubesError, match="does not run"):
                await driver.plugged(SPEC.uuid)
        finally:
            await driver.close()

    asyncio.run(story())
