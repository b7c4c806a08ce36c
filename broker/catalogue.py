"""What the engine is told of the Admin API's calls, made when it asks.

A program that decides one call reads the method table only where a policy is in the delegation dialect.
"""

from __future__ import annotations

from policy_engine import Catalogue


def catalogue(enforced: bool) -> Catalogue:
    """All calls of the Admin API.

    Args:
        enforced: as ``Catalogue.enforced``.
    """
    from broker.entries import ENTRIES

    return Catalogue(ENTRIES, enforced)
