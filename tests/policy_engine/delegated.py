"""Policies with files of the dialect, from texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from policy_engine import CONFIGURED, RUNTIME, Catalogue, Loader, MemorySource, Policy, PolicyError
from tests.policy_engine.catalogue import carried_out

DIALECT = "!dialect delegation-1\n"


def loader(files: Mapping[str, str | bytes], catalogue: Callable[[], Catalogue] = carried_out) -> Loader:
    """Of the files of the configured directory, by path within it."""
    contents = {
        f"{CONFIGURED}/{path}": text if isinstance(text, bytes) else text.encode()
        for path, text in files.items()
    }
    return Loader(MemorySource(contents, [RUNTIME, CONFIGURED]), catalogue=catalogue)


def policy_of(text: str, catalogue: Callable[[], Catalogue] = carried_out) -> Policy:
    """The policy of one file of the dialect, its first line left out."""
    return loader({"1.policy": DIALECT + text}, catalogue).load()


def error_of(text: str, catalogue: Callable[[], Catalogue] = carried_out) -> PolicyError:
    """Why that policy does not load; told by ``check`` as well."""
    found = loader({"1.policy": DIALECT + text}, catalogue)
    with pytest.raises(PolicyError) as caught:
        found.load()
    assert str(caught.value) in map(str, found.check())
    return caught.value
