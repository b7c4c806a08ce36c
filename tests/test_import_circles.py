"""No module of ours needs itself, by whatever way round: each can be read after all that it builds on.

The imports are those of the source, the ones for the type checker included.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from tests.test_imports import SOURCES, imported, module_name

MODULES = {module_name(path): path for path in SOURCES}


def needed(name: str) -> Iterator[str]:
    """The modules that this one imports, or imports something of."""
    path = MODULES[name]
    for _, origin in imported(ast.parse(path.read_text(encoding="utf-8")), path):
        for candidate in (origin, origin.rpartition(".")[0]):
            if candidate in MODULES and candidate != name:
                yield candidate
                break


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle, the first again at the end; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_needs_itself() -> None:
    assert circle({name: set(needed(name)) for name in MODULES}) == []


def test_a_circle_is_found() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
