"""A question while the user thinks about it, and whether it is still the same when the answer comes."""

from __future__ import annotations

from typing import NamedTuple

from policy_engine import Asked, Policy, PolicyError, Request, World, decide


class Pending(NamedTuple):
    """What was asked, by which policy, in which world."""

    asked: Asked
    request: Request
    policy: Policy
    world: World

    def stands(self, choice: str, policy: Policy | PolicyError, world: World) -> bool:
        """Whether the question would be put now: of this very policy, by the same rule, with this choice,
        about the same qubes."""
        if policy is not self.policy:
            return False
        asked, request = self.asked, self.request
        again = decide(self.policy, request, world)
        return (
            isinstance(again, Asked)
            and again.rule == asked.rule
            and choice in again.targets
            and all(
                _identity(text, self.world) == _identity(text, world)
                for text in (request.source, asked.source, asked.requested_target, choice)
            )
        )


def _identity(text: str, world: World) -> tuple[bool, str | None]:
    """Which qube a text stands for: whether there is one, and its uuid."""
    facts = world.find(text.removeprefix("@dispvm:"))
    return (False, None) if facts is None else (True, facts.uuid)
