"""What calls are about: the names and values that each of the actors draws from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

Choices = tuple[str, ...]
Weighted = tuple[tuple[float, Choices], ...]

LAST_DISPOSABLE = "{disposable}"
"""Stands for the latest disposable that came of an observed call."""
LAST_TOKEN = "{token}"
"""Stands for the caller's latest token of a volume to be cloned."""


@dataclass(frozen=True, slots=True)
class Words:
    """Where a text holds ``{uuid NAME}`` it stands for the uuid of that qube, which each daemon draws.

    Attributes:
        targets: qubes that calls go to.
        named: qubes that arguments and values name.
        new: names of qubes to make, or of pools and labels where ``named`` has none.
    """

    targets: Weighted
    named: Weighted
    new: Choices
    templates: Choices
    labels: Choices
    pools: Choices
    volume_pools: Choices
    tags: Choices
    fresh: float = 0.03
    """The share of what is no word of its kind at all."""
    garbage: Choices = field(
        default=("", "a/b", "@anyvm", "@dispvm", "uuid:", "uuid:1", "-x", "x" * 40, "%s")
    )

    def target(self, random: Random) -> str:
        return self._one(random, self.targets)

    def name(self, random: Random) -> str:
        return self._one(random, self.named)

    def _one(self, random: Random, weighted: Weighted) -> str:
        if random.random() < self.fresh:
            return random.choice(self.garbage)
        (names,) = random.choices([names for _, names in weighted], [weight for weight, _ in weighted])
        name = random.choice(names)
        by_uuid = not name.startswith("{") and random.random() < 3 * self.fresh
        return f"uuid:{{uuid {name}}}" if by_uuid else name


OWN = ("team-web", "team-dvm", "team-old", "alice_work", LAST_DISPOSABLE)
MADE = ("alice_new", "alice_more")
SHARED = ("dom0", "alice", "bob", "tmpl", "net")
BOBS_OWN = ("bob_a", "bob_b", "bob_c")
HIDDEN_IN_ONE = ("secret-1", "secret-2", "secret-3", "secret-4", *BOBS_OWN)
HIDDEN_IN_BOTH = ("vault",)
NOWHERE = ("ghost", "secret-9", "bob_9", "alice_9")

ALICES = Words(
    targets=((8, OWN), (2, MADE), (1, SHARED), (2, HIDDEN_IN_ONE), (0.5, HIDDEN_IN_BOTH), (0.5, NOWHERE)),
    named=((4, OWN), (1, MADE), (2, SHARED), (4, HIDDEN_IN_ONE), (1, HIDDEN_IN_BOTH), (1, NOWHERE)),
    new=(*MADE, *MADE, *MADE, "alice", "work", "secret-1", "bob_b", "ghost"),
    templates=("tmpl", "tmpl", "tmpl", "", "team-dvm", "secret-1", "secret-2", "ghost"),
    labels=("red", "green", "red", "green", "blue", "nolabel"),
    pools=("teampool", "varlibqubes", "linux-kernel", "nopool"),
    volume_pools=("varlibqubes", "varlibqubes", "teampool", "linux-kernel", "nopool"),
    tags=(
        "backup",
        "plain",
        "team",
        "operator",
        "managed-by-alice",
        "created-by-bob",
        "shared-net",
        "secret",
    ),
)
"""What alice has, knows, guesses and cannot know."""

SETTLED = Words(
    targets=((4, tuple(name for name in OWN if name != LAST_DISPOSABLE)), (1, MADE)),
    named=((3, OWN), (1, MADE), (1, ("net", "tmpl", "vault", "alice"))),
    new=MADE,
    templates=("tmpl", "team-dvm"),
    labels=("red", "green", "blue"),
    pools=("teampool",),
    volume_pools=("varlibqubes", "teampool"),
    tags=("backup", "plain", "team", "managed-by-alice", "shared-net"),
    fresh=0.0,
)
"""What others do with what alice sees, on both daemons alike."""

CONCEALED = Words(
    targets=((1, HIDDEN_IN_ONE),),
    named=((4, HIDDEN_IN_ONE), (1, ("net", "tmpl", "vault"))),
    new=HIDDEN_IN_ONE,
    templates=("tmpl", "secret-1", "secret-2"),
    labels=("secretlabel", "secretnew", "red"),
    pools=("secretpool", "secretnew"),
    volume_pools=("varlibqubes", "secretpool"),
    tags=("backup", "secret", "managed-by-bob", "created-by-bob", "operator"),
    fresh=0.0,
)
"""What happens on one daemon only. Its qubes use what is nobody's to take away, and alice cannot try their
names as new ones: that would go through declared channels."""

BOBS = replace(
    CONCEALED,
    targets=((6, BOBS_OWN), (1, HIDDEN_IN_ONE)),
    new=BOBS_OWN,
    templates=("tmpl",),
    labels=("red", "green"),
    tags=("backup", "backup", "secret"),
)
"""What bob's role lets him do among it, mostly."""
