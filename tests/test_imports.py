"""Which folder may import which: every arrow of the house plan, and no other.

The imports are read from the source, those for the type checker included: a module that names a type of
another folder knows that folder.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BASE = frozenset({"qubesd.errors", "qubesd.config", "qubesd.disk"})
MODEL = BASE | {"qubesd.model", "qubesd.events"}
NEWS = frozenset({"qubesd.core.power_events", "qubesd.core.guest_events", "qubesd.core.device_events"})
"""The events that extensions know of, and nothing else of the core."""
PARTS = frozenset({"qubesd.store", "qubesd.virt", "qubesd.storage", "qubesd.backup"})
CORE = MODEL | PARTS | NEWS | {"qubesd.bus", "qubesd.core", "qubesd.extension"}

ARROWS: dict[str, frozenset[str]] = {
    "policy_engine": frozenset(),
    "qubesd": frozenset(),
    "qubesd.errors": frozenset(),
    "qubesd.disk": frozenset(),
    "qubesd.config": frozenset({"qubesd.errors"}),
    "qubesd.model": BASE,
    "qubesd.events": BASE | {"qubesd.model"},
    "qubesd.bus": frozenset({"qubesd.events"}),
    "qubesd.store": MODEL,
    "qubesd.virt": MODEL,
    "qubesd.storage": MODEL,
    **dict.fromkeys(NEWS, MODEL | NEWS),
    "qubesd.extension": MODEL,
    "qubesd.extensions": MODEL | NEWS | {"qubesd.extension"},
    "qubesd.backup": MODEL,
    "qubesd.core": CORE,
    "qubesd.api": CORE | {"qubesd.api"},
    "broker": CORE | {"qubesd", "qubesd.api", "qubesd.extensions", "policy_engine"},
    "tools": CORE | {"qubesd", "qubesd.api", "qubesd.extensions", "policy_engine", "broker"},
}
"""For each part, the other parts that it may import; its own modules always."""

FOREIGN: dict[str, tuple[str, ...]] = {
    "libvirt": ("qubesd.virt",),
    "libvirtaio": ("qubesd.virt",),
    "lxml": ("qubesd.store", "qubesd.virt"),
    "lark": ("policy_engine",),
    "pyinotify": ("broker",),
    "yaml": ("qubesd.backup",),
    "gi": ("broker",),
    "socket": ("broker", "tools"),
    "socketserver": (),
}
"""Libraries that only these parts may import."""

SERVING = frozenset(
    {"open_connection", "open_unix_connection", "start_server", "start_unix_server"}
    | {"create_connection", "create_unix_connection", "create_server", "create_unix_server"}
)
"""The ways to a socket that go through asyncio."""

PACKAGES = ("policy_engine", "qubesd", "broker", "tools")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def part_of(module: str) -> str | None:
    """The part that a dotted module name belongs to, the longest that fits; ``None`` for foreign ones."""
    words = module.split(".")
    prefixes = (".".join(words[:length]) for length in range(len(words), 0, -1))
    return next((prefix for prefix in prefixes if prefix in ARROWS), None)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of all that is imported anywhere in a file, whether a module or something in it."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:
                yield node.lineno, f"{origin}.{alias.name}"


def faults(source: str, path: Path) -> list[str]:
    """What in this file goes against the house plan, each with its line."""
    tree = ast.parse(source)
    here = part_of(module_name(path))
    assert here is not None
    found = []
    for line, name in imported(tree, path):
        there = part_of(name)
        if there is not None and there != here and there not in ARROWS[here]:
            found.append(f"{path.relative_to(ROOT)}:{line}: {here} may not import {name}")
        owners = FOREIGN.get(name.split(".")[0])
        if owners is not None and here not in owners:
            found.append(f"{path.relative_to(ROOT)}:{line}: {here} may not import {name}")
    if here not in FOREIGN["socket"]:
        found += [
            f"{path.relative_to(ROOT)}:{node.lineno}: {here} may not call {node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in SERVING
        ]
    return found


@pytest.mark.parametrize("path", [pytest.param(path, id=module_name(path)) for path in SOURCES])
def test_every_import_is_an_arrow_of_the_plan(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        pytest.param("policy_engine/decide.py", "from qubesd.model import qube", id="engine-knows-nothing"),
        pytest.param("qubesd/api/qubes.py", "import broker.wire", id="qubesd-knows-no-broker"),
        pytest.param("qubesd/core/power.py", "from policy_engine import decide", id="qubesd-knows-no-policy"),
        pytest.param("qubesd/model/label.py", "from qubesd.store import read", id="model-knows-no-store"),
        pytest.param("qubesd/model/label.py", "from ..core import core", id="relative-imports-count"),
        pytest.param("qubesd/virt/test.py", "from qubesd.storage import pool", id="virt-knows-no-storage"),
        pytest.param("qubesd/core/core.py", "from qubesd.api.method import Call", id="core-knows-no-api"),
        pytest.param("qubesd/core/core.py", "def f():\n    import libvirt", id="libvirt-only-in-virt"),
        pytest.param("broker/wire.py", "from lxml import etree", id="lxml-only-in-store-and-virt"),
        pytest.param("qubesd/core/core.py", "import socket", id="sockets-only-in-broker"),
        pytest.param("qubesd/api/x.py", "asyncio.start_unix_server(f)", id="sockets-of-asyncio-too"),
        pytest.param(
            "qubesd/extensions/x.py", "from qubesd.core.draft import Draft", id="extensions-know-no-core"
        ),
        pytest.param("qubesd/core/core.py", "import qubesd.extensions.gui", id="core-knows-no-extension"),
        pytest.param("broker/serve.py", "import tools.demo", id="nothing-imports-the-tools"),
    ],
)
def test_a_wrong_arrow_is_found(place: str, source: str) -> None:
    assert len(faults(source, ROOT / place)) == 1


def test_every_part_is_there_to_be_read() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(PACKAGES)
