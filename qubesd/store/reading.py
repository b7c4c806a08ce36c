"""The whole file to a system: sections, labels, pools, and what records say of each other."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TypeVar

from lxml import etree

from qubesd.errors import QubesError, StoreError
from qubesd.model import names
from qubesd.model.properties import GLOBALS
from qubesd.model.state import Label, PoolConfig, Qube, System
from qubesd.store.elements import Misread, attribute, children, content, parts
from qubesd.store.keeping import take
from qubesd.store.older import color_of
from qubesd.store.property_reading import check_references, read_properties
from qubesd.store.qube_reading import Domain, read_domain

_log = logging.getLogger(__name__)

Named = TypeVar("Named", Label, PoolConfig)


def read_system(root: etree._Element, where: str) -> System:
    """The system as written, older forms of single elements brought up to date.

    Raises:
        StoreError: ``where``, the line, and what is wrong in it.
    """
    try:
        return _system(root)
    except Misread as error:
        raise StoreError(f"{where}:{error.line}: {error}") from error


def _system(root: etree._Element) -> System:
    kept = take(root)
    sections = parts(root, "labels", "pools", "properties", "domains")
    for needed in ("labels", "domains"):
        if needed not in sections:
            raise Misread(root, f"<{needed}> is missing")
    labels = _by_name((element, _label(element)) for element in children(sections["labels"], "label"))
    if len({label.index for label in labels.values()}) < len(labels):
        raise Misread(sections["labels"], "two labels have the same index")
    pools = _by_name((element, _pool(element)) for element in children(sections.get("pools"), "pool"))
    domains = [read_domain(element, labels) for element in children(sections["domains"], "domain")]
    for domain in domains:
        _tell_of_lost_pools(domain, pools)
    qubes, by_uuid = _qubes(domains)
    for domain in domains:
        check_references(domain.references, domain.qube, qubes)
    properties = read_properties(sections.get("properties"), GLOBALS, labels)
    check_references(properties.references, None, qubes)
    return System(labels, pools, properties.values, qubes, by_uuid, kept)


def _qubes(domains: Iterable[Domain]) -> tuple[dict[str, Qube], dict[str, str]]:
    """The qubes by name and their names by uuid; no two have the same name, uuid or qid."""
    qubes: dict[str, Qube] = {}
    by_uuid: dict[str, str] = {}
    by_qid: dict[int, str] = {}
    for domain in domains:
        qube = domain.qube
        if qube.name in qubes:
            raise Misread(domain.element, f"two qubes have the name {qube.name!r}")
        if qube.qid in by_qid:
            both = f"{by_qid[qube.qid]!r} and {qube.name!r}"
            raise Misread(domain.element, f"qubes {both} have the same qid, {qube.qid}")
        if qube.uuid in by_uuid:
            both = f"{by_uuid[qube.uuid]!r} and {qube.name!r}"
            raise Misread(domain.element, f"qubes {both} have the same uuid, {qube.uuid}")
        qubes[qube.name] = qube
        by_uuid[qube.uuid] = qube.name
        by_qid[qube.qid] = qube.name
    return qubes, by_uuid


def _tell_of_lost_pools(domain: Domain, pools: Mapping[str, PoolConfig]) -> None:
    for volume in domain.qube.volumes.values():
        if volume.pool not in pools:
            _log.warning(
                "qube %r: volume %r is in pool %r, and there is no such pool: it cannot be used",
                *(domain.qube.name, volume.name, volume.pool),
            )


def _by_name(records: Iterable[tuple[etree._Element, Named]]) -> dict[str, Named]:
    found: dict[str, Named] = {}
    for element, record in records:
        if record.name in found:
            raise Misread(element, f"{element.tag} {record.name!r} stands twice")
        found[record.name] = record
    return found


def _label(element: etree._Element) -> Label:
    index = attribute(element, "id").removeprefix("label-")
    if not (index.isascii() and index.isdigit()):
        raise Misread(element, f"expected an id such as 'label-1', found {element.get('id')!r}")
    try:
        color = names.check_color(color_of(attribute(element, "color")))
        name = names.check_label_name(content(element))
    except QubesError as error:
        raise Misread(element, str(error)) from error
    return Label(name, int(index), color)


def _pool(element: etree._Element) -> PoolConfig:
    name = attribute(element, "name")
    driver = attribute(element, "driver")
    options = {str(key): str(value) for key, value in element.items() if key not in ("name", "driver")}
    return PoolConfig(name, driver, options)
