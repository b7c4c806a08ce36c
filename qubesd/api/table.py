"""The method tables: every call there is. A service that is not here does not exist."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType

from qubesd.api import (
    backup,
    classes,
    denied,
    devices,
    events,
    features,
    firewall,
    imports,
    internal,
    labels,
    misc,
    notes,
    pool_volumes,
    pools,
    power,
    properties,
    qubes,
    statistics,
    tags,
    volumes,
)
from qubesd.api.method import Method

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in chain.from_iterable(
            noun.METHODS
            for noun in (
                classes,
                qubes,
                power,
                statistics,
                properties,
                features,
                tags,
                denied,
                devices,
                volumes,
                firewall,
                notes,
                labels,
                pools,
                pool_volumes,
                backup,
                events,
            )
        )
    }
)
"""The Admin API by wire name: what the public socket and the sockets of qubes serve."""

INTERNAL: Mapping[str, Method] = MappingProxyType(
    {method.name: method for method in (*internal.METHODS, *imports.METHODS)}
)
"""What only the internal socket serves."""

MISC: Mapping[str, Method] = MappingProxyType({method.name: method for method in misc.METHODS})
"""What only the misc socket serves."""
