"""Values to XML: the file's sections in the stock form and order (``spec/qubes-xml.md`` 1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lxml import etree

from qubesd.errors import StoreError
from qubesd.model.properties import table, text
from qubesd.model.state import (
    Assignment,
    Kept,
    Klass,
    Place,
    PoolConfig,
    Qube,
    System,
    Value,
    VolumeConfig,
)
from qubesd.store.keeping import WITHOUT_VOLUMES, device_classes, put_back

_DECLARATION = b"<?xml version='1.0' encoding='UTF-8'?>\n"


class Writer:
    """Writes one system after another and keeps what it made of each qube.

    A record never changes, so the bytes of a qube that is still the same record are still right: writing a
    large system after a small change costs little more than joining them.
    """

    def __init__(self) -> None:
        self._written: dict[str, tuple[Qube, bytes]] = {}

    def dump(self, system: System) -> bytes:
        """The whole file.

        Raises:
            StoreError: a text holds a character that XML cannot.
        """
        written: dict[str, tuple[Qube, bytes]] = {}
        for qube in system.in_order():
            known = self._written.get(qube.name)
            written[qube.name] = known if known and known[0] is qube else (qube, _written(qube))
        self._written = written
        sections = (_labels(system), _pools(system), _properties(system.properties.items()))
        domains = _around("domains", ("domains",), 1, system, (section for _, section in written.values()))
        inside = (*(_section(element, 1, system.kept, (element.tag,)) for element in sections), *domains)
        return b"".join((_DECLARATION, *_around("qubes", (), 0, system, inside)))


def _written(qube: Qube) -> bytes:
    return _section(_domain(qube), 2, qube.kept)


def _section(element: etree._Element, level: int, kept: Mapping[Place, Kept], place: Place = ()) -> bytes:
    # What is put back stays as it was, blanks and all.
    etree.indent(element, "  ", level=level)
    put_back(element, kept, place)
    return _text(element, level)


def _text(element: etree._Element, level: int) -> bytes:
    return b"  " * level + etree.tostring(element, encoding="UTF-8", xml_declaration=False) + b"\n"


def _around(tag: str, place: Place, level: int, system: System, inside: Iterable[bytes]) -> Iterator[bytes]:
    """An element of the system around what is written already, with what is kept of it."""
    attributes, elements = system.kept.get(place, Kept())
    yield _text(_element(tag, dict(attributes)), level).replace(b"/>\n", b">\n")
    yield from inside
    for kept in elements:
        yield _text(etree.fromstring(kept), level + 1)
    yield b"  " * level + f"</{tag}>\n".encode("ascii")


def _labels(system: System) -> etree._Element:
    element = etree.Element("labels")
    for label in sorted(system.labels.values(), key=lambda label: label.index):
        _add(element, "label", {"id": f"label-{label.index}", "color": label.color}, label.name)
    return element


def _pools(system: System) -> etree._Element:
    element = etree.Element("pools")
    for pool in system.pools.values():
        _add(element, "pool", _pool(pool))
    return element


def _pool(pool: PoolConfig) -> dict[str, str]:
    return {"name": pool.name, "driver": pool.driver, **pool.options}


def _properties(properties: Iterable[tuple[str, Value]]) -> etree._Element:
    element = etree.Element("properties")
    for name, value in properties:
        _add(element, "property", {"name": name}, text(value))
    return element


def _domain(qube: Qube) -> etree._Element:
    element = _element("domain", {"id": f"domain-{qube.qid}", "class": str(qube.klass)})
    element.append(_properties(_in_list_order(qube)))
    features = _add(element, "features")
    for name, value in qube.features.items():
        _add(features, "feature", {"name": name}, value)
    tags = _add(element, "tags")
    for tag in sorted(qube.tags):
        _add(tags, "tag", {"name": tag})
    assigned: dict[str, list[Assignment]] = {devclass: [] for devclass in device_classes(qube.kept)}
    for assignment in qube.assignments:
        assigned.setdefault(assignment.devclass, []).append(assignment)
    for devclass in sorted(assigned):
        devices = _add(element, "devices", {"class": devclass})
        for assignment in assigned[devclass]:
            _add_assignment(devices, assignment)
    if qube.klass not in WITHOUT_VOLUMES:
        volumes = _add(element, "volume-config")
        for volume in qube.volumes.values():
            _add(volumes, "volume", _volume(volume))
    return element


def _in_list_order(qube: Qube) -> list[tuple[str, Value]]:
    """The explicit properties as every list has them; those of another version, kept as they were, come
    last."""
    values = dict(qube.properties)
    if qube.klass is not Klass.ADMIN:
        values |= {"name": qube.name, "qid": qube.qid, "uuid": qube.uuid}
    if qube.dispid is not None:
        values["dispid"] = qube.dispid
    known = [(name, values.pop(name)) for name in table(qube.klass) if name in values]
    return [*known, *values.items()]


def _add_assignment(devices: etree._Element, assignment: Assignment) -> None:
    device = _add(
        devices,
        "device",
        {
            "backend-domain": assignment.backend,
            "id": assignment.port,
            "mode": assignment.mode,
            "identity": assignment.identity,
        },
    )
    for name, value in assignment.options.items():
        _add(device, "option", {"name": name}, value)


def _volume(volume: VolumeConfig) -> dict[str, str]:
    attributes: dict[str, Value] = {
        "name": volume.name,
        "pool": volume.pool,
        "vid": volume.vid,
        "revisions_to_keep": volume.revisions_to_keep,
        "rw": volume.rw,
        "save_on_stop": volume.save_on_stop,
        "snap_on_start": volume.snap_on_start,
    }
    if volume.ephemeral is not None:
        attributes["ephemeral"] = volume.ephemeral
    if volume.size:
        attributes["size"] = volume.size
    if volume.source is not None:
        attributes["source"] = volume.source
    return {name: text(value) for name, value in attributes.items()}


def _add(
    parent: etree._Element, tag: str, attributes: Mapping[str, str] | None = None, content: str | None = None
) -> etree._Element:
    element = _element(tag, attributes or {}, content)
    parent.append(element)
    return element


def _element(tag: str, attributes: Mapping[str, str], content: str | None = None) -> etree._Element:
    element = etree.Element(tag)
    try:
        for name, value in attributes.items():
            element.set(name, value)
        element.text = content
    except ValueError as error:
        raise StoreError(f"{tag} {dict(attributes)!r} holds a character that XML cannot") from error
    return element
