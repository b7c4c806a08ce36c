"""Whether one field of the delegation dialect says all that another one says, and perhaps more.

The answers are on the safe side: a yes holds for every request in every world; a no may only mean that it
takes more than a look at the two texts to tell.
"""

from __future__ import annotations

from policy_engine.catalogue import GUARDED
from policy_engine.delegation import Arguments, Reach, Services
from policy_engine.expression import Both, Either, Expression, Is, Not, alternatives


def covers(wide: Reach, narrow: Reach) -> bool:
    """Whether whatever matches the fields of ``narrow`` matches those of ``wide``."""
    return (
        covers_qubes(wide.source, narrow.source)
        and covers_qubes(wide.target, narrow.target)
        and covers_services(wide.services, narrow.services)
        and covers_arguments(wide.arguments, narrow.arguments)
    )


def covers_services(wide: Services, narrow: Services) -> bool:
    return all(map(wide.covers, narrow.names)) and all(_covers_glob(wide, glob) for glob in narrow.globs)


def _covers_glob(wide: Services, glob: str) -> bool:
    """A glob that speaks of the Admin API is covered by one that does so too."""
    guarded = glob.startswith(GUARDED)
    return any(glob.startswith(head) and (not guarded or head.startswith(GUARDED)) for head in wide.globs)


def covers_arguments(wide: Arguments, narrow: Arguments) -> bool:
    if "" in wide.globs:
        return True
    if narrow.qubes is not None:
        return wide.qubes is not None and covers_qubes(wide.qubes, narrow.qubes)
    return (
        wide.qubes is None
        and all(map(wide.covers, narrow.names))
        and all(glob.startswith(wide.globs) for glob in narrow.globs)
    )


def covers_qubes(wide: Expression, narrow: Expression) -> bool:
    """Of expressions for one column, whoever calls."""
    if isinstance(narrow, Either):
        return all(covers_qubes(wide, part) for part in narrow.parts)
    return any(_covers_part(one, narrow) for one in alternatives(wide))


def _covers_part(wide: Expression, narrow: Expression) -> bool:
    """``narrow`` is one alternative."""
    if isinstance(wide, Both):
        return all(covers_qubes(part, narrow) for part in wide.parts)
    if wide == narrow or wide == Is("*"):
        return True
    if isinstance(narrow, Both):
        return any(covers_qubes(wide, part) for part in narrow.parts)
    if wide == Is("@anyvm"):
        return isinstance(narrow, Not) or (isinstance(narrow, Is) and never_dom0(narrow.key))
    return isinstance(wide, Not) and isinstance(narrow, Not) and covers_qubes(narrow.part, wide.part)


def never_dom0(key: str) -> bool:
    """Whether what has this key is never dom0: names of other qubes, and what only calls can name."""
    if key.startswith("@type:"):
        return key != "@type:AdminVM"
    return key in ("@default", "@anyvm") or key.startswith("@dispvm") or not key.startswith(("@", "*"))
