"""Values as events tell them (``spec/wire-protocol.md`` 3.2)."""

from __future__ import annotations

from qubesd.model.properties import Reading
from qubesd.model.state import Value


def as_told(value: Value) -> str:
    """A value's text; none is the word ``None``."""
    return str(value)


def told(reading: Reading) -> str | None:
    """The text of what was read; ``None`` where there is no value at all, not even none."""
    return as_told(reading.value) if reading.has_value else None
