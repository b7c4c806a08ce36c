"""Elements to properties, of a qube or of the system; each goes through its own form and rule."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lxml import etree

from qubesd.errors import QubesError
from qubesd.model.properties import Property, Settable
from qubesd.model.references import find_label
from qubesd.model.state import Klass, Label, Qube, Value
from qubesd.store.elements import Misread, attribute, children, whereabouts
from qubesd.store.older import FIREWALL_NETVM, present_property, property_text

_log = logging.getLogger(__name__)

_TEMPLATES = {Klass.APP: (Klass.TEMPLATE,), Klass.DISPOSABLE: (Klass.APP, Klass.STANDALONE)}
"""The classes of qubes that can be the template of a class."""


@dataclass(slots=True)
class Properties:
    """What was read: typed values, the texts of those that are fields of a qube's record, and the elements
    whose value names a qube."""

    values: dict[str, Value] = field(default_factory=dict)
    record: dict[str, str] = field(default_factory=dict)
    references: list[etree._Element] = field(default_factory=list)


def read_properties(
    parent: etree._Element | None, table: Mapping[str, Property], labels: Mapping[str, Label]
) -> Properties:
    """The explicit properties in ``parent``.

    A property that this version does not know is kept as the text that it is, and written back: a later
    version may have meant something by it.
    """
    read = Properties()
    for element in children(parent, "property"):
        name, text = attribute(element, "name"), property_text(element)
        if name not in table:
            name, text = present_property(name, text)
        if name in read.values or name in read.record:
            raise Misread(element, f"property {name!r} stands twice")
        line = table.get(name)
        if line is None:
            if name != FIREWALL_NETVM:
                _log.warning("%s: unknown property %r is kept as it is", whereabouts(element), name)
            read.values[name] = text
        elif line.stored is not None:
            read.record[name] = text
        elif line.settable is Settable.NO:
            _log.warning("%s: computed property %r is left out", whereabouts(element), name)
        else:
            read.values[name] = _value(element, line, text, labels)
            if line.type == "vm" and text:
                read.references.append(element)
    return read


def check_references(
    references: Iterable[etree._Element], owner: Qube | None, qubes: Mapping[str, Qube]
) -> None:
    """Every qube that is named is there, and a template is of the right class."""
    for element in references:
        name, text = element.get("name"), property_text(element)
        if text not in qubes:
            raise Misread(
                element,
                f"property {name!r} names {text!r}, and there is no such qube: name another, or remove it",
            )
        if name == "template" and owner is not None:
            klass = qubes[text].klass
            if klass not in _TEMPLATES[owner.klass]:
                raise Misread(element, f"{text!r} of class {klass} cannot be the template of a {owner.klass}")


def _value(element: etree._Element, line: Property, text: str, labels: Mapping[str, Label]) -> Value:
    try:
        if line.type == "label":
            label = find_label(labels, text)
            if label is None:
                raise Misread(element, f"there is no label {text!r}: name one of {', '.join(labels)}")
            return label.name
        return line.rule(line.coarse(text.encode()))
    except QubesError as error:
        raise Misread(element, f"property {line.name!r}: {error}") from error
