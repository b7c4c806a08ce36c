"""The queue of disposables that wait to be handed out, as steps of a larger change."""

from __future__ import annotations

from dataclasses import replace

from qubesd.core.draft import Draft
from qubesd.core.features import drop_feature, put_feature
from qubesd.core.tags import Inherits, belong_to, drop_tag, is_tracking
from qubesd.events import PropertyReset
from qubesd.model.owner import OWNER, owner_of_new
from qubesd.model.preload import COMPLETED, IN_PROGRESS, INTERNAL, template_of_waiting
from qubesd.model.references import QUEUE, waiting
from qubesd.model.state import Qube

_MARKS = (IN_PROGRESS, COMPLETED, INTERNAL)
_ANNOUNCED = "supported-rpc."
"""What the guest of a disposable may announce of itself, also while it waits."""


def enter(draft: Draft, name: str) -> None:
    """Put a disposable that is being made at the end of its template's queue."""
    template = str(draft.system.qubes[name].properties["template"])
    put_feature(draft, name, IN_PROGRESS, "1")
    put_feature(draft, template, QUEUE, " ".join([*waiting(draft.system.qubes[template]), name]))
    put_feature(draft, name, INTERNAL, "1")


def complete(draft: Draft, name: str) -> None:
    """It can be handed out from now on."""
    drop_feature(draft, name, IN_PROGRESS)
    put_feature(draft, name, COMPLETED, "1")


def leave(draft: Draft, name: str) -> None:
    """Take it out of the queue; nothing where it is in none."""
    template = template_of_waiting(draft, name)
    if template is not None:
        strike(draft, template.name, name)
        draft.tell(PropertyReset(name, "is_preload"))


def hand_out(draft: Draft, name: str, taker: Qube, inherits: Inherits) -> None:
    """Give it to whoever takes it, without what of its template's tags one made for them would not have."""
    leave(draft, name)
    for tag in sorted(draft.system.qubes[name].tags):
        if not is_tracking(tag) and not inherits(tag):
            drop_tag(draft, name, tag)
    owner = owner_of_new(taker)
    if owner is not None:
        put_feature(draft, name, OWNER, owner)
    belong_to(draft, name, taker, passing=True)


def strike(draft: Draft, template: str, name: str) -> None:
    """Take a name out of the queue of this template, also one that is no disposable of it."""
    left = [other for other in waiting(draft.system.qubes[template]) if other != name]
    put_feature(draft, template, QUEUE, " ".join(left))


def without_marks(qube: Qube) -> Qube:
    """The qube as it would be, had it not waited, nor its guest said what it can do."""
    kept = {
        name: value
        for name, value in qube.features.items()
        if name not in _MARKS and not name.startswith(_ANNOUNCED)
    }
    return replace(qube, features=kept)


def become_ordinary(draft: Draft, name: str) -> None:
    """Take from it what one that waits has; what its template has of that stays, as for one made now."""
    template = draft.system.qubes[str(draft.system.qubes[name].properties["template"])]
    for feature in _MARKS:
        if feature != INTERNAL or INTERNAL not in template.features:
            drop_feature(draft, name, feature)
