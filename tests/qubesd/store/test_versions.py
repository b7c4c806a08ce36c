"""Stores of stock Qubes 4.0 to 4.3: read, and written so that stock reads them; nothing of them is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from qubesd.errors import StoreError
from qubesd.model.properties import text
from qubesd.model.state import DOM0, Klass, System
from qubesd.store.check import Change, check
from qubesd.store.xml import dump, load
from tests.qubesd.store import stock_reader
from tests.qubesd.store.systems import systems
from tests.qubesd.store.versions import STOCK_4_0, STOCK_4_1, STOCK_4_2, STOCK_4_3

VERSIONS = {"4.0": STOCK_4_0, "4.1": STOCK_4_1, "4.2": STOCK_4_2, "4.3": STOCK_4_3}
DEVICE = "domains/net/devices pci/dom0:00_19.0/@"


def everywhere(device: str) -> set[str]:
    return {"labels/gray/@color", *(f"{DEVICE}{name}" for name in device.split())}


@pytest.mark.parametrize(
    ("version", "work", "device", "changes"),
    [
        pytest.param(
            "4.0",
            {"virt_mode": "hvm", "template_for_dispvms": True, "default_dispvm": None},
            ("00_19.0", "*", "required"),
            {
                *("@version", "labels/gray/@color", "domains/work/volume-config/private/@internal"),
                *("properties/default_fw_netvm", "properties/default_netvm", "properties/default_netvm/@ref"),
                *(f"domains/work/properties/{name}" for name in ("hvm", "virt_mode", "dispvm_allowed")),
                *("domains/work/properties/template_for_dispvms", "domains/work/properties/default_dispvm"),
                *("domains/work/properties/label", "domains/net/properties/netvm"),
                *(f"domains/net/devices pci/dom0:00:19.0/{what}" for what in ("@id", "@backend-domain")),
                "domains/net/devices pci/dom0:00:19.0/no-strict-reset",
                f"{DEVICE[:-1]}no-strict-reset",
                *(f"{DEVICE}{name}" for name in ("id", "backend-domain", "mode", "identity")),
            },
            id="4.0",
        ),
        pytest.param(
            "4.1",
            {"virt_mode": "pvh", "template_for_dispvms": True},
            ("00_19.0", "*", "required"),
            everywhere("mode identity"),
            id="4.1",
        ),
        pytest.param(
            "4.2",
            {"template_for_dispvms": True, "bootmode": "default"},
            ("00_19.0", "0x8086:0x10ef::p020000", "required"),
            {*everywhere("mode identity required"), f"{DEVICE[:-1]}identity"},
            id="4.2",
        ),
        pytest.param(
            "4.3",
            {"template_for_dispvms": True},
            ("00_1c.0-00_00.0", "0x8086:0x10ef::p020000", "required"),
            everywhere(""),
            id="4.3",
        ),
    ],
)
def test_a_store_of_stock(
    version: str, work: dict[str, Any], device: tuple[str, ...], changes: set[str]
) -> None:
    data = VERSIONS[version].encode()
    system = load(data)
    assert system.qubes["work"].properties == {"label": "red", "template": "tpl", **work}
    (assigned,) = system.qubes["net"].assignments
    assert (assigned.port, assigned.identity, assigned.mode) == device
    assert assigned.options == {"no-strict-reset": "True"}
    assert stock_reader.read(dump(system)) == as_stock(system)
    outcome = check(data, "qubes.xml")
    assert {change.place for change in outcome.changes} == changes
    assert (outcome.qubes, outcome.kept, outcome.odd) == (4, (), ())
    assert check(dump(system), "qubes.xml").changes == ()


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=15)
@given(systems())
def test_stock_reads_what_is_written(system: System) -> None:
    assert stock_reader.read(dump(system)) == as_stock(system)


def as_stock(system: System) -> stock_reader.Stock:
    """The system as the stock daemon should find it."""
    qubes = {}
    for qube in system.in_order():
        properties = {name: text(value) for name, value in qube.properties.items()}
        if qube.name != DOM0:
            properties |= {"name": qube.name, "qid": str(qube.qid), "uuid": qube.uuid}
        if qube.dispid is not None:
            properties["dispid"] = str(qube.dispid)
        devices = [
            (one.devclass, one.backend, one.port, one.identity, one.mode, dict(one.options))
            for one in sorted(qube.assignments, key=lambda one: one.devclass)
        ]
        volumes = {}
        for volume in qube.volumes.values() if qube.klass not in (Klass.ADMIN, Klass.REMOTE) else ():
            fields = {name: getattr(volume, name) for name in (*stock_reader.ALWAYS, "source")}
            fields |= {"size": volume.size or None, "ephemeral": volume.ephemeral}
            volumes[volume.name] = {name: str(value) for name, value in fields.items() if value is not None}
        qubes[qube.name] = stock_reader.StockQube(
            qube.qid, str(qube.klass), properties, dict(qube.features), set(qube.tags), devices, volumes
        )
    return stock_reader.Stock(
        {one.index: (one.name, one.color) for one in sorted(system.labels.values(), key=lambda x: x.index)},
        {one.name: {"name": one.name, "driver": one.driver, **one.options} for one in system.pools.values()},
        {name: text(value) for name, value in system.properties.items()},
        qubes,
    )


GO = ("default_fw_netvm", "identity")
"""What does not stay itself: a property that is no more, and an option that is an attribute now."""

STRANGE = st.sampled_from(
    (
        "<{0}/>",
        "<{0}> x </{0}>",
        "<{0}><name>dom0</name><domain id='x'/> y</{0}>",
        "<{0} a='&lt;&quot;&#10;'> <b/> </{0}>",
        "<s:{0} xmlns:s='urn:strange' s:a='1'/>",
        "<{0} xmlns='urn:strange'><property name='label'>?</property></{0}>",
    )
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=30)
@given(st.data())
def test_what_is_not_understood_outlives_a_change(data: st.DataObject) -> None:
    """Put anywhere into a file of any version, once read, changed and written, it is where it was."""
    root = etree.fromstring(data.draw(st.sampled_from(list(VERSIONS.values()))).encode())
    elements = [one for one in root.iter(etree.Element) if one.get("name") not in GO]
    for number in range(data.draw(st.integers(1, 6))):
        name, element = f"strange{number}", data.draw(st.sampled_from(elements))
        if data.draw(st.booleans()):
            element.set(name, "é <\n")
        else:
            element.append(etree.fromstring(data.draw(STRANGE).format(name)))
    put = strange(root)
    system = load(etree.tostring(root))
    assert load(dump(system)) == system
    work = system.qubes["work"].with_feature("new", "1").without_tag("created-by-nobody")
    changed = system.with_qube(work).with_property("stats_interval", 7)
    written = dump(changed)
    assert load(written) == changed
    assert strange(etree.fromstring(written)) == put
    assert stock_reader.read(written) == stock_reader.read(dump(without_strange(changed)))
    assert len(check(written, "qubes.xml").kept) == len(put) - in_pools(root)


def strange(root: etree._Element) -> Mapping[str, tuple[str, ...]]:
    """What is strange in a document by its name: where it stands, and its whole text."""
    found = {}
    for element in root.iter(etree.Element):
        own = etree.QName(element).localname
        parent = element.getparent()
        if own.startswith("strange"):
            assert parent is not None
            assert own not in found
            found[own] = (
                *whereabouts(parent),
                etree.tostring(element, method="c14n", with_tail=False).decode(),
            )
        for name, value in element.items():
            if str(name).startswith("strange"):
                assert name not in found
                found[str(name)] = (*whereabouts(element), str(value))
    return found


def whereabouts(element: etree._Element) -> tuple[str, str, str]:
    """The tag, what tells the element from its like (a property may have got its present name), the qube."""
    tag = str(element.tag)
    domain = next(element.iterancestors("domain"), None)
    name = "" if tag in ("property", "device") else element.get("name") or element.get("class") or ""
    return tag, name, "" if domain is None else domain.get("id") or ""


def without_strange(system: System) -> System:
    root = etree.fromstring(dump(system))
    for element in list(root.iter(etree.Element)):
        names = [str(name) for name in element.attrib if str(name).startswith("strange")]
        for name in names if element.tag != "pool" else ():
            del element.attrib[name]
        if etree.QName(element).localname.startswith("strange"):
            parent = element.getparent()
            assert parent is not None
            parent.remove(element)
    return load(etree.tostring(root))


def in_pools(root: etree._Element) -> int:
    """Attributes of pools are options of their drivers."""
    return sum(str(name).startswith("strange") for pool in root.iter("pool") for name, _ in pool.items())


def test_what_is_kept_goes_with_what_it_stands_in() -> None:
    document = STOCK_4_3.replace('<feature name="service.cups">', '<feature name="service.cups" x="1">')
    document = document.replace('<tag name="created-by-dom0"/>', '<tag name="created-by-dom0" x="1"/>')
    document = document.replace(">red</label>", ' x="1">red</label>').replace(
        '<property name="default_dispvm">', '<property name="default_dispvm" x="1">'
    )
    system = load(document.encode())
    work = system.qubes["work"].without_feature("service.cups").without_tag("created-by-dom0")
    work = work.with_feature("service.cups", "").with_tag("created-by-dom0")
    again = system.without_property("default_dispvm").with_property("default_dispvm", "work")
    red = system.labels["red"]
    again = again.with_qube(work).without_label("red").with_label(red)
    assert system.kept
    assert dump(again) == dump(load(STOCK_4_3.encode()))


@pytest.mark.parametrize(
    ("document", "way_out"),
    [
        pytest.param("<QubesVmCollection/>", "written by Qubes 3.2 or an earlier version", id="release-3"),
        pytest.param('<qubes version="2.0"/>', "those of Qubes 4.0 to 4.3 are read", id="version-2"),
        pytest.param('<qubes version="4.0"/>', "those of Qubes 4.0 to 4.3 are read", id="version-4"),
    ],
)
def test_other_versions_are_refused_with_a_way_out(document: str, way_out: str) -> None:
    with pytest.raises(StoreError, match=r"^f:1: ") as refused:
        check(document.encode(), "f")
    assert way_out in str(refused.value)
    assert "restore a backup" in str(refused.value)


def test_what_is_odd_is_told() -> None:
    document = STOCK_4_3.replace('backend-domain="dom0"', 'backend-domain="gone"').replace(
        '<property name="default_dispvm">',
        '<!-- mine --><property name="later">x</property><property name="default_dispvm">',
    )
    outcome = check(document.encode(), "f")
    assert outcome.odd == (
        "f:14: unknown property 'later' is kept as it is",
        "qube 'net': pci device gone:00_1c.0-00_00.0 is no longer assigned, there is no such qube",
    )
    assert outcome.kept == ("properties/later",)
    assert outcome.comments == 1
    assert Change("domains/net/devices pci/gone:00_1c.0-00_00.0/@mode", "required", None) in outcome.changes
