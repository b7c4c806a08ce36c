"""The persistent state of a system as values: what ``qubes.xml`` holds, and nothing that only a run knows.

Every class here is frozen. A change makes a new ``System`` that shares all the rest with the old one, so the
state that was durable last, the state that a call was judged by and the state that is being written are each
simply kept, and going back after a failed write is one assignment.

Qubes, labels and pools refer to each other by name; names of qubes are write-once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Literal, Self

type_name = Literal["AdminVM", "TemplateVM", "AppVM", "StandaloneVM", "DispVM", "RemoteVM"]

Value = bool | int | str | None
"""A property's explicit value: a qube, a label or a pool stands as its name, none as ``None``."""

DOM0 = "dom0"
DOM0_UUID = "00000000-0000-0000-0000-000000000000"

_EMPTY: Mapping[str, Value] = MappingProxyType({})
_NO_TEXTS: Mapping[str, str] = MappingProxyType({})
