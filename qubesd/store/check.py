"""What would become of a file: whether it is read, what of it is kept unread, and what the first change of
anything would make of the rest."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from lxml import etree

from qubesd.model.properties import GLOBALS, table
from qubesd.model.state import Kept, Place, PoolConfig, System, Value
from qubesd.store.xml import dump, load

_PACKAGE = "qubesd.store"
_TOLD_BY: Mapping[str, str] = {"devices": "class"}
"""The attribute that tells an element from its like, which is part of the places in it; else the name."""


@dataclass(frozen=True, slots=True)
class Change:
    """One text of the file before and after; ``None`` where there is none."""

    place: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a file was taken.

    ``classes`` counts the qubes of each class, dom0 among them. ``kept`` names what is not understood and
    written back as it was. ``odd`` is what the daemon would put into its log.
    """

    classes: Mapping[str, int]
    kept: tuple[str, ...]
    odd: tuple[str, ...]
    changes: tuple[Change, ...]
    comments: int
    """Comments in the file, and instructions to other programs, which do not stay."""
    pools: tuple[PoolConfig, ...]
    encrypts: bool
    """Whether it has volumes that are encrypted with a key that nobody keeps."""

    @property
    def drivers(self) -> frozenset[str]:
        """Those of its pools."""
        return frozenset(pool.driver for pool in self.pools)

    @property
    def qubes(self) -> int:
        return sum(self.classes.values())


def check(data: bytes, where: str) -> Outcome:
    """Read the bytes of a file as a daemon that starts would, and write nothing.

    Raises:
        StoreError: the daemon would not start on it; ``where``, the line, and what is wrong.
    """
    with _overheard() as odd:
        system = load(data, where)
    root = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))
    comments = int(str(root.xpath("string(count(//comment() | //processing-instruction()))")))
    etree.strip_tags(root, etree.Comment, etree.ProcessingInstruction)
    before, after = dict(_texts(root, "")), dict(_texts(etree.fromstring(dump(system)), ""))
    places = [*before, *(place for place in after if place not in before)]
    return Outcome(
        dict(Counter(str(qube.klass) for qube in system.in_order())),
        tuple(_kept(system)),
        tuple(odd),
        tuple(
            Change(place, before.get(place), after.get(place))
            for place in places
            if before.get(place) != after.get(place)
        ),
        comments,
        tuple(system.pools.values()),
        any(volume.ephemeral for qube in system.qubes.values() for volume in qube.volumes.values())
        or any(pool.options.get("ephemeral_volatile") == "True" for pool in system.pools.values()),
    )


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """What the reader says to the log meanwhile."""
    said: list[str] = []
    logger, handler = logging.getLogger(_PACKAGE), _Ear(said)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class _Ear(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


def _kept(system: System) -> Iterator[str]:
    yield from _places("", system.kept, system.properties, GLOBALS)
    for qube in system.in_order():
        yield from _places(f"domains/{qube.name}/", qube.kept, qube.properties, table(qube.klass))


def _places(
    where: str, kept: Mapping[Place, Kept], properties: Mapping[str, Value], known: Mapping[str, object]
) -> Iterator[str]:
    for place, (attributes, elements) in kept.items():
        inside = where + "".join(f"{step}/" for step in place)
        yield from (f"{inside}@{name}" for name, _ in attributes)
        yield from (f"{inside}{etree.fromstring(text).tag!s}" for text in elements)
    yield from (f"{where}properties/{name}" for name in properties if name not in known)


def _texts(element: etree._Element, place: str) -> Iterator[tuple[str, str]]:
    """Every text and attribute below an element by a place that does not depend on the order of things."""
    told_by = _TOLD_BY.get(element.tag, "name")
    for name, value in element.items():
        if name != told_by:
            yield f"{place}@{name!s}", str(value)
    if element.text and (not len(element) or element.text.strip()):
        yield place.rstrip("/") or "text", element.text
    if element.tail and element.tail.strip():
        yield f"text behind {place.rstrip('/')}", element.tail
    seen: Counter[str] = Counter()
    for child in element.iterchildren(etree.Element):
        step = _step(child)
        seen[step] += 1
        more = "" if seen[step] == 1 else f"[{seen[step]}]"
        if not len(child) and not child.text:
            yield f"{place}{step}{more}", ""
        yield from _texts(child, f"{place}{step}{more}/")


def _step(element: etree._Element) -> str:
    """What an element is called among those around it."""
    match element.tag:
        case "domain":
            return element.findtext("properties/property[@name='name']") or "dom0"
        case "label":
            return element.text or ""
        case "device":
            return f"{element.get('backend-domain')}:{element.get('id')}"
        case "devices":
            return f"devices {element.get('class')}"
        case _:
            return element.get("name") or str(element.tag)
