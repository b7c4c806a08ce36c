"""What the user said yes to, kept apart from the code that is tested: by what the questions showed, and by
what the qubes and the policy were at that moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qubesd.api.call import Call
from tools.consenting.household import REMEMBERED, STOCK, Household

SINGLE, LEASE = 60.0, 600.0
"""Seconds that a yes counts, and one that is remembered."""


@dataclass(frozen=True)
class Sight:
    """What a question is about at the moment at which it is put: names by uuid, and under which policy."""

    call: Call
    caller: str | None
    target: str | None
    brings: str | None
    policy: int


@dataclass
class Yes:
    """One yes, and when it was given. ``policy`` counts the changes of policy before it."""

    sight: Sight
    given: float
    remembered: bool


class Ledger:
    """The yeses that were given and not used."""

    def __init__(self, house: Household) -> None:
        self._house = house
        self._yeses: list[Yes] = []
        self.policy = 0

    def sight(self, call: Call) -> Sight:
        """The call, as its names stand now."""
        named = call.payload.decode("latin-1") if call.service == "admin.vm.property.Set" else ""
        uuid = self._house.uuid
        return Sight(call, uuid(call.source), uuid(call.target), uuid(named), self.policy)

    def misshown(self, call: Call, says: Mapping[str, Any]) -> str | None:
        """What is wrong with a question about this call; ``None`` for nothing."""
        argument, _, value = str(says["argument"]).partition(" = ")
        argument, _, about = argument.partition(" of ")
        about = about or says["targets"][0]
        shown = (says["source"], says["service"], argument, about, value)
        payload = call.payload.decode("latin-1")
        if call.service in ("admin.vm.property.Set", "admin.vm.feature.Set") and not payload:
            payload = "none"
        want = (call.source, call.service, f"+{call.argument}", call.target, payload)
        return None if shown == want else f"the question shows {shown}, the call is {want}"

    def agreed(self, sight: Sight) -> None:
        """The user said yes to a question that was put at this sight."""
        remembered = sight.call.service in REMEMBERED and not self._house.policy.startswith(STOCK)
        self._yeses.append(Yes(sight, self._house.now, remembered))

    def void(self) -> None:
        """What the last yes was given for had changed by then."""
        self._yeses.pop()

    def covers(self, call: Call) -> bool:
        """Whether a yes counts for this call now."""
        return self._find(call) is not None

    def spend(self, call: Call) -> bool:
        """The call is being carried out: whether a yes counts for it, which is then used."""
        found = self._find(call)
        if found is not None and not found.remembered:
            self._yeses.remove(found)
        return found is not None

    def _find(self, call: Call) -> Yes | None:
        now, sight = self._house.now, self.sight(call)
        fitting = [
            one
            for one in self._yeses
            if one.sight == sight and now < one.given + (LEASE if one.remembered else SINGLE)
        ]
        return min(fitting, key=lambda one: not one.remembered, default=None)
