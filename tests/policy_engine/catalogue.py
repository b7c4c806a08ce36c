"""A catalogue of a few calls of each kind, for tests that need none of the real method table."""

from __future__ import annotations

from collections.abc import Mapping

from policy_engine import Catalogue, Entry, Kind, Names
from policy_engine.catalogue import SINGLE


def _property(argument: str) -> Mapping[str, Kind] | None:
    kinds = {"memory": Kind.MEBIBYTES, "netvm": Kind.QUBE, "label": Kind.TEXT, "vcpus": Kind.NUMBER}
    return {SINGLE: kinds[argument]} if argument in kinds else None


def _created(argument: str) -> Mapping[str, Kind]:
    return {"name": Kind.TEXT, "label": Kind.TEXT}


ENTRIES = {
    "admin.vm.List": Entry("global", "read"),
    "admin.vm.Start": Entry("local", "execute"),
    "admin.vm.property.Set": Entry("local", "write", form=_property, takes_payload=True),
    "admin.vm.device.block.Attach": Entry(
        "local", "execute", Names.DEVICE, takes_payload=True, needs_core=True
    ),
    "admin.vm.Create.AppVM": Entry(
        "global", "write", Names.QUBE, _created, takes_payload=True, needs_core=True
    ),
    "policy.List": Entry("global", "read"),
}

CATALOGUE = Catalogue(ENTRIES, enforced=True)
"""Of a daemon that carries the calls out."""

EVALUATED = Catalogue(ENTRIES, enforced=False)
"""Of one that only says what the policy says."""


def carried_out() -> Catalogue:
    return CATALOGUE


def only_evaluated() -> Catalogue:
    return EVALUATED
