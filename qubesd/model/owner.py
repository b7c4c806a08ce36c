"""Whose a qube is: on whose budget it counts, whoever acts on it.

Who makes a qube owns it, and what an owned qube makes belongs to the same owner. The owner's uuid is kept as
a feature of the qube, so that the stored file stays one that stock reads. What dom0 made has no owner.
"""

from __future__ import annotations

from qubesd.model.state import Klass, Qube

OWNER = "owner-uuid"
"""The feature; its value is a uuid, also of a qube that has gone since."""


def owner_of(qube: Qube) -> str | None:
    """The uuid of the qube's owner; ``None`` for none."""
    return qube.features.get(OWNER) or None


def owner_of_new(creator: Qube) -> str | None:
    """The uuid of who owns what this qube makes; ``None`` for dom0."""
    if creator.klass is Klass.ADMIN:
        return None
    return owner_of(creator) or creator.uuid
