"""``qubes.xml`` as bytes: ``load`` makes a system of them, ``dump`` makes them of a system."""

from __future__ import annotations

from lxml import etree

from qubesd.errors import StoreError
from qubesd.model.state import System
from qubesd.store.elements import closed_parser
from qubesd.store.migration import settle
from qubesd.store.reading import read_system
from qubesd.store.writing import Writer

_KNOWN_VERSIONS = (None, "3.0")
"""The writer of stock Qubes gives no version, its published schema asks for 3.0; neither says more."""

_OF_RELEASE_3 = "QubesVmCollection"
"""The outermost element before release 4."""


def dump(system: System) -> bytes:
    """The file's bytes; ``Writer`` does the same faster where one system after another is written.

    Raises:
        StoreError: a text holds a character that XML cannot.
    """
    return Writer().dump(system)


def load(data: bytes, where: str = "qubes.xml") -> System:
    """The system that these bytes describe, older forms brought up to date (``spec/qubes-xml.md`` 1.6).

    ``where`` stands before the line in every message.

    Raises:
        StoreError: what is wrong, and in which line.
    """
    return settle(read_system(_parse(data, where), where), where)


def _parse(data: bytes, where: str) -> etree._Element:
    try:
        root = etree.fromstring(data, closed_parser(), base_url=where)
    except etree.XMLSyntaxError as error:
        line, column = error.position
        what = (error.msg or "document is empty").partition(", line ")[0].lower()
        raise StoreError(f"{where}:{line or 1}: column {column}: not well-formed XML: {what}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise StoreError(f"{where}:1: a document type is not accepted")
    if root.tag == _OF_RELEASE_3:
        raise StoreError(
            f"{where}:{root.sourceline}: written by Qubes 3.2 or an earlier version, which is not read here: "
            "install Qubes 4.0 or later and restore a backup of the qubes there"
        )
    if root.tag != "qubes":
        raise StoreError(f"{where}:{root.sourceline}: expected <qubes>, found <{root.tag}>")
    if root.get("version") not in _KNOWN_VERSIONS:
        raise StoreError(
            f"{where}:{root.sourceline}: unknown version {root.get('version')!r}: "
            "those of Qubes 4.0 to 4.3 are read; restore a backup of the qubes on one of these"
        )
    return root
