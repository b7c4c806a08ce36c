"""``qubes.xml`` as ``spec/qubes-xml.md`` 1 has it, read by nothing of ours: what stock finds there."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.etree import ElementTree

BOOLEANS = {"True": True, "False": False}
SECTIONS = ["labels", "pools", "properties", "domains"]
PARTS = ["properties", "features", "tags", "devices", "volume-config"]
WITHOUT_VOLUMES = ("AdminVM", "RemoteVM")
ALWAYS = ("name", "pool", "vid", "revisions_to_keep", "rw", "save_on_stop", "snap_on_start")
MEANINGFUL = ("ephemeral", "size", "source")


@dataclass
class StockQube:
    qid: int
    klass: str
    properties: dict[str, str]
    features: dict[str, str]
    tags: set[str]
    devices: list[tuple[str, str, str, str, str, dict[str, str]]] = field(default_factory=list)
    volumes: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass
class Stock:
    labels: dict[int, tuple[str, str]]
    pools: dict[str, dict[str, str]]
    properties: dict[str, str]
    qubes: dict[str, StockQube]


def read(data: bytes) -> Stock:
    """What is in the file; ``AssertionError`` where it is not as the specification has it.

    Elements that it does not name are passed over, as the stock reader does, which looks for those it knows.
    """
    assert data.startswith(b"<?xml version='1.0' encoding='UTF-8'?>\n")
    root = ElementTree.fromstring(data)
    assert root.tag == "qubes"
    assert "version" not in root.attrib
    assert [part.tag for part in root if part.tag in SECTIONS] == SECTIONS
    labels = {}
    for label in root.findall("labels/label"):
        color = label.attrib["color"]
        assert color.startswith("0x")
        assert len(bytes.fromhex(color[2:])) == 3
        labels[_number(label, "label-")] = label.text or "", color
    assert list(labels) == sorted(labels)
    pools = {}
    for pool in root.findall("pools/pool"):
        assert {"name", "driver"} <= pool.attrib.keys()
        pools[pool.attrib["name"]] = dict(pool.attrib)
    qubes = {}
    for domain in root.findall("domains/domain"):
        qube = _qube(domain)
        qubes["dom0" if qube.klass == "AdminVM" else qube.properties["name"]] = qube
    names = list(qubes)
    assert names[0] == "dom0"
    assert names[1:] == sorted(names[1:])
    return Stock(labels, pools, _properties(root.find("properties")), qubes)


def _qube(domain: ElementTree.Element) -> StockQube:
    order = [PARTS.index(part.tag) for part in domain if part.tag in PARTS]
    assert order == sorted(order)
    qube = StockQube(
        _number(domain, "domain-"),
        domain.attrib["class"],
        _properties(domain.find("properties")),
        {one.attrib["name"]: one.text or "" for one in domain.findall("features/feature")},
        {one.attrib["name"] for one in domain.findall("tags/tag")},
    )
    if qube.klass != "AdminVM":
        assert {"name", "qid", "uuid", "label"} <= qube.properties.keys()
        assert int(qube.properties["qid"]) == qube.qid
    for group in domain.findall("devices"):
        for device in group.findall("device"):
            assert device.attrib["mode"] in ("required", "auto-attach", "ask-to-attach")
            described = [device.attrib[name] for name in ("backend-domain", "id", "identity", "mode")]
            options = {one.attrib["name"]: one.text or "" for one in device.findall("option")}
            qube.devices.append((group.attrib["class"], *described, options))  # type: ignore[arg-type]  # four
    if qube.klass in WITHOUT_VOLUMES:
        return qube
    volumes = domain.find("volume-config")
    assert volumes is not None
    for volume in volumes.findall("volume"):
        assert set(ALWAYS) <= volume.attrib.keys()
        for flag in ("rw", "save_on_stop", "snap_on_start"):
            assert volume.attrib[flag] in BOOLEANS
        known = {k: v for k, v in volume.attrib.items() if k in (*ALWAYS, *MEANINGFUL)}
        qube.volumes[volume.attrib["name"]] = known
    return qube


def _number(element: ElementTree.Element, before: str) -> int:
    assert element.attrib["id"].startswith(before)
    return int(element.attrib["id"].removeprefix(before))


def _properties(parent: ElementTree.Element | None) -> dict[str, str]:
    assert parent is not None
    found = {one.attrib["name"]: one.text or "" for one in parent.findall("property")}
    assert len(found) == len(parent.findall("property"))
    return found
