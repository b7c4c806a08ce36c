"""The C daemon, compiled once, and the dom0 it serves, in both of its arrangements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.c.dom0 import APART, TOGETHER, Dom0, dom0_of
from tests.c.stock import compiled


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("c"))


@pytest.fixture(scope="module", params=[TOGETHER, APART])
def dom0(
    request: pytest.FixtureRequest, program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Dom0]:
    with dom0_of(program, tmp_path_factory.mktemp("root"), request.param) as dom0:
        yield dom0
