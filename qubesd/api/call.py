"""What comes through the door, before anything of it is looked up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came through the door: checked for its form, its names not yet looked up.

    ``source`` and ``target`` are a name or ``uuid:`` and a uuid; ``argument`` is without the ``+``, empty for
    none.
    """

    service: str
    argument: str
    source: str
    target: str
    payload: bytes
