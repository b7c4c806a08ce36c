"""What earlier versions left in a file, settled for the whole system (``spec/qubes-xml.md`` 1.6)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from qubesd.errors import StoreError
from qubesd.model import features
from qubesd.model.lineage import named, netvm_of
from qubesd.model.network import provides_network
from qubesd.model.references import makes_disposables
from qubesd.model.state import DOM0, DOM0_UUID, Klass, Qube, System, Value
from qubesd.store.older import FIREWALL_NETVM

_log = logging.getLogger(__name__)

_DISPOSABLE_TEMPLATES = ("default_dispvm", "management_dispvm")
_DOM0_LABEL = "black"


def settle(system: System, where: str) -> System:
    """The system as this version would have it: with dom0, without loops, without forms of earlier versions.

    Raises:
        StoreError: dom0 is not there, and there is no label for it.
    """
    if DOM0 not in system.qubes:
        if _DOM0_LABEL not in system.labels:
            raise StoreError(f"{where}: no label {_DOM0_LABEL!r} for the missing dom0")
        system = system.with_qube(Qube(DOM0, 0, DOM0_UUID, Klass.ADMIN, {"label": _DOM0_LABEL}))
    system = _without_firewall_netvm(system)
    system = replace(system, properties=_disposable_templates_only(system, system.properties))
    qubes = {name: _settled(system, qube) for name, qube in system.qubes.items()}
    return _without_loops(replace(system, qubes=qubes))


def _settled(system: System, qube: Qube) -> Qube:
    properties = _disposable_templates_only(system, qube.properties)
    if properties is not qube.properties:
        qube = replace(qube, properties=properties)
    for gone in (one for one in qube.assignments if one.backend not in system.qubes):
        device = f"{gone.devclass} device {gone.backend}:{gone.port}"
        _log.warning("qube %r: %s is no longer assigned, there is no such qube", qube.name, device)
        qube = replace(qube, assignments=tuple(one for one in qube.assignments if one is not gone))
    if features.BALANCED in qube.features:
        qube = features.apply(qube, features.BALANCED, qube.features[features.BALANCED])
    return qube


def _disposable_templates_only(system: System, properties: Mapping[str, Value]) -> Mapping[str, Value]:
    """With none in the place of a template for disposables that is not one."""
    wrong = {
        name: None
        for name in _DISPOSABLE_TEMPLATES
        if (qube := named(system, properties.get(name))) is not None and not makes_disposables(qube)
    }
    return {**properties, **wrong} if wrong else properties


def _without_firewall_netvm(system: System) -> System:
    """Qubes that give network once had a default netvm of their own."""
    if FIREWALL_NETVM not in system.properties:
        return system
    netvm = system.properties[FIREWALL_NETVM] or None
    system = system.without_property(FIREWALL_NETVM)
    if netvm == system.properties.get("default_netvm") or (netvm is not None and netvm not in system.qubes):
        return system
    for qube in system.qubes.values():
        if provides_network(qube) and "netvm" not in qube.properties:
            system = system.with_qube(qube.with_property("netvm", netvm))
    return system


def _without_loops(system: System) -> System:
    """Cut where a qube would be behind itself."""
    cleared: set[str] = set()
    for name in list(system.qubes):
        seen: set[str] = set()
        step: Qube | None = system.qubes[name]
        while step is not None and step.name not in cleared:
            if step.name in seen:
                _log.warning("qube %r was behind itself and has no netvm now", step.name)
                system = system.with_qube(step.with_property("netvm", None))
                break
            seen.add(step.name)
            step = netvm_of(system, step)
        cleared |= seen
    return system
