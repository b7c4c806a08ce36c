"""One ``<domain>`` to one qube (``spec/qubes-xml.md`` 1.4 and 1.5)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from qubesd.errors import BadValue, QubesError
from qubesd.model import forms, names
from qubesd.model.devices import ANY
from qubesd.model.properties import table
from qubesd.model.state import DOM0, DOM0_UUID, Assignment, Klass, Label, Qube, VolumeConfig
from qubesd.store.elements import Misread, attribute, children, flag, named_texts, number, whereabouts
from qubesd.store.keeping import take
from qubesd.store.older import identity_of, port_of
from qubesd.store.property_reading import Properties, read_properties

_log = logging.getLogger(__name__)

_MODES = ("required", "auto-attach", "ask-to-attach")
_ONCE = ("properties", "features", "tags", "volume-config")


@dataclass(frozen=True, slots=True)
class Domain:
    """A qube, its element, and the elements in it that name other qubes."""

    qube: Qube
    element: etree._Element
    references: list[etree._Element]


def read_domain(element: etree._Element, labels: Mapping[str, Label]) -> Domain:
    """The qube as written; whether the qubes that it names are there is not looked at."""
    klass = _klass(element)
    kept = take(element)
    single: dict[str, etree._Element] = {}
    assignments: list[Assignment] = []
    for part in children(element, *_ONCE, "devices"):
        if part.tag == "devices":
            assignments += _assignments(part)
        elif part.tag in single:
            raise Misread(part, f"<domain> has <{part.tag}> twice")
        else:
            single[part.tag] = part
    properties = read_properties(single.get("properties"), table(klass), labels)
    for needed in ("label", "template"):
        line = table(klass).get(needed)
        if line is not None and properties.values.get(needed) is None:
            raise Misread(element, f"the qube has no {needed}")
    name, qid, uuid_, dispid = _identity(element, klass, properties)
    qube = Qube(
        name=name,
        qid=qid,
        uuid=uuid_,
        klass=klass,
        properties=properties.values,
        features=named_texts(single.get("features"), "feature"),
        tags=frozenset(_tags(single.get("tags"))),
        assignments=_once(element, assignments),
        volumes=_volumes(single.get("volume-config")),
        dispid=dispid,
        kept=kept,
    )
    return Domain(qube, element, properties.references)


def _klass(element: etree._Element) -> Klass:
    try:
        return Klass(attribute(element, "class"))
    except ValueError as error:
        raise Misread(element, f"unknown class {element.get('class')!r}") from error


def _identity(
    element: etree._Element, klass: Klass, properties: Properties
) -> tuple[str, int, str, int | None]:
    """Name, qid, uuid and dispid. dom0's are always the same; a uuid that was never given is made now."""
    if klass is Klass.ADMIN:
        return DOM0, 0, DOM0_UUID, None
    written = properties.record
    try:
        name = names.check_qube_name(_given(element, "name", written))
        uuid_ = names.check_uuid(written.get("uuid", str(uuid.uuid4())).lower())
        qid = _bounded(element, "qid", written, names.MAX_QID)
        dispid = _bounded(element, "dispid", written, names.MAX_DISPID) if klass is Klass.DISPOSABLE else None
    except QubesError as error:
        raise Misread(element, str(error)) from error
    if name == DOM0 or uuid_ == DOM0_UUID or qid == 0:
        raise Misread(element, f"qube {name!r} has the name, the qid or the uuid of dom0")
    return name, qid, uuid_, dispid


def _given(element: etree._Element, name: str, written: Mapping[str, str]) -> str:
    text = written.get(name)
    if text is None:
        raise Misread(element, f"the qube has no {name}")
    return text


def _bounded(element: etree._Element, name: str, written: Mapping[str, str], most: int) -> int:
    try:
        value = forms.integer(_given(element, name, written).encode())
    except BadValue as error:
        raise Misread(element, f"{name}: {error}") from error
    if not 0 <= value <= most:
        raise Misread(element, f"{name} {value} is not in 0 to {most}")
    return value


def _tags(parent: etree._Element | None) -> list[str]:
    try:
        return [names.check_tag(attribute(element, "name")) for element in children(parent, "tag")]
    except QubesError as error:
        assert parent is not None
        raise Misread(parent, str(error)) from error


def _assignments(devices: etree._Element) -> list[Assignment]:
    devclass = attribute(devices, "class")
    read: list[Assignment] = []
    for element in children(devices, "device"):
        identity = identity_of(element)
        options = named_texts(element, "option")
        if element.get("identity") is None:
            options.pop("identity", None)
        mode = _mode(element)
        if mode not in _MODES:
            _log.warning("%s: an assignment of unknown mode %r is dropped", whereabouts(element), mode)
            continue
        attribute(element, "id")
        port = port_of(devclass, element)
        if port == identity == ANY:
            raise Misread(element, "a device is assigned by id, identity or both, and '*' in both is any")
        read.append(
            Assignment(
                devclass=devclass,
                backend=attribute(element, "backend-domain"),
                port=port,
                identity=identity,
                mode=mode,
                options=options,
            )
        )
    return read


def _once(element: etree._Element, assignments: list[Assignment]) -> tuple[Assignment, ...]:
    """Of those that are of the same device the first, as every call would find it."""
    found: dict[tuple[str, str, str, str], Assignment] = {}
    for one in assignments:
        key = one.devclass, one.backend, one.port, one.identity
        if found.setdefault(key, one) is not one:
            where = whereabouts(element)
            _log.warning("%s: %s device %s:%s is assigned twice, the first counts", where, *key[:3])
    return tuple(found.values())


def _mode(element: etree._Element) -> str:
    """The mode; earlier versions had but the one question whether a device is required."""
    mode = element.get("mode")
    return mode if mode is not None else _MODES[0 if flag(element, "required", True) else 1]


def _volumes(parent: etree._Element | None) -> dict[str, VolumeConfig]:
    read: dict[str, VolumeConfig] = {}
    for element in children(parent, "volume"):
        volume = VolumeConfig(
            name=attribute(element, "name"),
            pool=attribute(element, "pool"),
            vid=attribute(element, "vid"),
            revisions_to_keep=number(element, "revisions_to_keep", 0, least=-1),
            rw=flag(element, "rw", False),
            save_on_stop=flag(element, "save_on_stop", False),
            snap_on_start=flag(element, "snap_on_start", False),
            size=number(element, "size", 0),
            source=element.get("source"),
            ephemeral=None if element.get("ephemeral") is None else flag(element, "ephemeral", False),
        )
        if volume.name in read:
            raise Misread(element, f"volume {volume.name!r} stands twice")
        read[volume.name] = volume
    return read
