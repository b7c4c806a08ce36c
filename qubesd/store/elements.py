"""Reading XML elements strictly: what is not as it must be is an error, for the next write would lose it."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from qubesd.errors import BadValue
from qubesd.model import forms


class Misread(Exception):
    """What is wrong with an element, and the line in which it begins."""

    def __init__(self, element: etree._Element, what: str) -> None:
        super().__init__(what)
        self.line = element.sourceline


def closed_parser() -> etree.XMLParser:
    """One that resolves no entities but XML's own five and fetches nothing, with libxml2's limits on depth
    and size left on. A text is whole whatever comments are in it. A document type is for the
    caller to refuse."""
    return etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )


def whereabouts(element: etree._Element) -> str:
    """The file and the line in which an element begins, as they stand before a message."""
    return f"{element.getroottree().docinfo.URL}:{element.sourceline}"


def children(parent: etree._Element | None, *tags: str) -> Iterator[etree._Element]:
    """The elements in an element, all of them with one of these tags; none of no element."""
    for child in parent if parent is not None else ():
        if child.tag not in tags:
            raise Misread(child, f"expected {' or '.join(f'<{tag}>' for tag in tags)}, found <{child.tag}>")
        yield child


def parts(parent: etree._Element, *tags: str) -> dict[str, etree._Element]:
    """The elements in an element by tag, each at most once."""
    found: dict[str, etree._Element] = {}
    for child in children(parent, *tags):
        if child.tag in found:
            raise Misread(child, f"<{parent.tag}> has <{child.tag}> twice")
        found[child.tag] = child
    return found


def attribute(element: etree._Element, name: str) -> str:
    value = element.get(name)
    if value is None:
        raise Misread(element, f"<{element.tag}> has no attribute {name!r}")
    return value


def content(element: etree._Element) -> str:
    """The text in an element, empty for none."""
    if len(element):
        raise Misread(element, f"<{element.tag}> holds elements, expected text")
    return element.text or ""


def number(element: etree._Element, name: str, otherwise: int, least: int = 0) -> int:
    """A decimal attribute of at least ``least``."""
    try:
        value = forms.integer(element.get(name, str(otherwise)).encode())
    except BadValue as error:
        raise Misread(element, f"{name!r}: {error}") from error
    if value < least:
        raise Misread(element, f"{name!r}: expected {least} or more, found {value}")
    return value


def flag(element: etree._Element, name: str, otherwise: bool) -> bool:
    """A boolean attribute."""
    try:
        return forms.boolean(element.get(name, str(otherwise)).encode())
    except BadValue as error:
        raise Misread(element, f"{name!r}: {error}") from error


def named_texts(parent: etree._Element | None, tag: str) -> dict[str, str]:
    """The texts of elements that have a name each, no two the same."""
    found: dict[str, str] = {}
    for element in children(parent, tag):
        name = attribute(element, "name")
        if name in found:
            raise Misread(element, f"{tag} {name!r} stands twice")
        found[name] = content(element)
    return found
