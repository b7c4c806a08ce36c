"""What a file holds and nobody here understands: taken out before it is read, put back as it is written.

The whole file is written anew with every change, so what was passed over in silence would be lost with
the first call. Elements and attributes that have no meaning here are kept with the record that they stand in,
by their place in it: those of a qube go with the qube, all others are the system's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lxml import etree

from qubesd.model.state import Assignment, Kept, Klass, Place
from qubesd.store.older import identity_of, port_of, present_property, property_text

_NOTHING: frozenset[str] = frozenset()
_CHILDREN: Mapping[str, frozenset[str]] = {
    "qubes": frozenset({"labels", "pools", "properties", "domains"}),
    "labels": frozenset({"label"}),
    "pools": frozenset({"pool"}),
    "properties": frozenset({"property"}),
    "domains": frozenset({"domain"}),
    "domain": frozenset({"properties", "features", "tags", "devices", "volume-config"}),
    "features": frozenset({"feature"}),
    "tags": frozenset({"tag"}),
    "devices": frozenset({"device"}),
    "device": frozenset({"option"}),
    "volume-config": frozenset({"volume"}),
}
"""The elements that have a meaning in an element; none in those that are not here."""

WITHOUT_VOLUMES = (Klass.ADMIN, Klass.REMOTE)
"""The classes of qubes in which volumes have none (``spec/qubes-xml.md`` 1.4)."""

_ATTRIBUTES: Mapping[str, frozenset[str]] = {
    "qubes": frozenset({"version"}),
    "label": frozenset({"id", "color"}),
    "property": frozenset({"name", "ref"}),
    "domain": frozenset({"id", "class"}),
    "feature": frozenset({"name"}),
    "tag": frozenset({"name"}),
    "devices": frozenset({"class"}),
    "device": frozenset({"backend-domain", "id", "mode", "identity", "required"}),
    "option": frozenset({"name"}),
    "volume": frozenset(
        {"name", "pool", "vid", "revisions_to_keep", "rw", "save_on_stop", "snap_on_start"}
        | {"ephemeral", "size", "source", "internal"}
    ),
}
"""The attributes that have one; of a pool all do, they are its driver's options."""


def _named(element: etree._Element) -> str:
    return element.get("name", "")


def _device(element: etree._Element) -> str:
    parent = element.getparent()
    devclass = "" if parent is None else parent.get("class", "")
    return _device_key(element.get("backend-domain", ""), port_of(devclass, element), identity_of(element))


def _device_key(backend: str, port: str, identity: str) -> str:
    return f"{backend} {port} {identity}"


_KEYS: Mapping[str, Callable[[etree._Element], str]] = {
    "label": lambda element: element.text or "",
    "pool": _named,
    "property": lambda element: present_property(_named(element), property_text(element))[0],
    "feature": _named,
    "tag": _named,
    "devices": lambda element: f"devices {element.get('class', '')}",
    "device": _device,
    "option": _named,
    "volume": _named,
}
"""What tells an element from its like; the others are told by their tag."""


def take(element: etree._Element) -> dict[Place, Kept]:
    """Take out of an element, and of all in it, what is not understood.

    The insides of qubes are left alone in an element that has qubes in it.
    """
    kept: dict[Place, Kept] = {}
    _take(element, (), kept)
    return kept


def put_back(element: etree._Element, kept: Mapping[Place, Kept], place: Place = ()) -> None:
    """Put it into an element that was made anew, which has that place; what it stood in may be gone."""
    if not kept:
        return
    for child in element:
        put_back(child, kept, (*place, _key(child)))
    found = kept.get(place)
    if found is not None:
        for name, value in found.attributes:
            element.set(name, value)
        for text in found.elements:
            _append(element, etree.fromstring(text))


def _append(element: etree._Element, child: etree._Element) -> None:
    """Put it last, on a line of its own where the others have one."""
    if len(element):
        last = element[-1]
        last.tail, child.tail = element.text, last.tail
    element.append(child)


def follow(kept: Mapping[Place, Kept], old: Assignment, new: Assignment) -> dict[Place, Kept]:
    """What is kept of a qube, with that in one device where this device is now."""
    before, after = (
        (f"devices {one.devclass}", _device_key(one.backend, one.port, one.identity)) for one in (old, new)
    )
    return {(after + place[2:] if place[:2] == before else place): found for place, found in kept.items()}


def device_classes(kept: Mapping[Place, Kept]) -> set[str]:
    """The classes of devices whose element has something to keep, whether or not there are such devices."""
    return {place[0].removeprefix("devices ") for place in kept if len(place) == 1 and " " in place[0]}


def _take(element: etree._Element, place: Place, kept: dict[Place, Kept]) -> None:
    elements: list[str] = []
    known = _known_children(element)
    for child in tuple(element):
        if child.tag not in known:
            elements.append(etree.tostring(child, encoding="unicode", with_tail=False))
            element.remove(child)
        elif child.tag != "domain":
            _take(child, (*place, _key(child)), kept)
    attributes = {} if element.tag == "pool" else _unknown_attributes(element)
    for name in attributes:
        del element.attrib[name]
    if attributes or elements:
        before = kept.get(place, Kept())
        kept[place] = Kept(
            tuple({**dict(before.attributes), **attributes}.items()), (*before.elements, *elements)
        )


def _known_children(element: etree._Element) -> frozenset[str]:
    known = _CHILDREN.get(element.tag, _NOTHING)
    if element.tag == "domain" and element.get("class") in WITHOUT_VOLUMES:
        return known - {"volume-config"}
    return known


def _unknown_attributes(element: etree._Element) -> dict[str, str]:
    known = _ATTRIBUTES.get(element.tag, _NOTHING)
    return {str(name): str(value) for name, value in element.items() if name not in known}


def _key(element: etree._Element) -> str:
    key = _KEYS.get(element.tag)
    return element.tag if key is None else key(element)
