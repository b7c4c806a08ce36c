"""Making and removing labels (``spec/admin-calls.md`` 8); neither tells anybody."""

from __future__ import annotations

from qubesd.core.draft import Draft
from qubesd.core.keeper import Keeper
from qubesd.errors import LabelInUse, NoSuchLabel, ProtocolError
from qubesd.model.references import find_label
from qubesd.model.state import Label, System

BUILT_IN = 8
"""The highest index of the labels that every system has."""


def label(system: System, text: str) -> Label:
    """The label of that name or index; ``NoSuchLabel`` where there is none."""
    found = find_label(system.labels, text)
    if found is None:
        raise NoSuchLabel(f"no label {text[:64]!r}")
    return found


def create_label(keeper: Keeper, name: str, color: str) -> None:
    """Add a label with the next index; ``LabelInUse`` where there is one of that name."""
    labels = keeper.system.labels
    if name in labels:
        raise LabelInUse(f"a label {name[:64]!r} is there already")
    index = max([BUILT_IN, *(known.index for known in labels.values())]) + 1
    draft = Draft(keeper)
    draft.system = draft.system.with_label(Label(name, index, color))
    draft.apply()


def remove_label(keeper: Keeper, text: str) -> None:
    """Remove a label that no qube has.

    Raises:
        NoSuchLabel: there is none of that name or index.
        ProtocolError: every system has this one.
        LabelInUse: some qube has it.
    """
    found = label(keeper.system, text)
    if found.index <= BUILT_IN:
        raise ProtocolError(f"label {found.name!r} is built in")
    if any(qube.properties.get("label") == found.name for qube in keeper.system.qubes.values()):
        raise LabelInUse(f"label {found.name!r} is in use")
    draft = Draft(keeper)
    draft.system = draft.system.without_label(found.name)
    draft.apply()
