"""Under strict visibility, a call that names a hidden qube is answered as if there were no such qube.

The answer is not imitated: the method's own handler gives it, on a core without those qubes that cannot be
changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Set

from broker.judge import Ground
from broker.visible import hidden
from qubesd.api.call import Call
from qubesd.api.method import Command, Method
from qubesd.bus import Bus
from qubesd.core.core import Core
from qubesd.core.creation import Creation
from qubesd.errors import PermissionDenied
from qubesd.model.state import Qube, System

_WORD = re.compile(r"[A-Za-z0-9_.:-]+")


class CoreWithout(Core):
    """The same core, except that some qubes are not there and nothing can be changed."""

    def __init__(self, core: Core, absent: Collection[str]) -> None:
        self.__dict__.update(core.__dict__)
        for name in absent:
            self.system = self.system.without_qube(name)
        self.bus = Bus()
        self.creation = Creation(self, core.storage, core.firewalls)

    def change(self, system: System, qubes: Iterable[str] = (), everything: bool = False) -> None:
        """Never: a call on a qube that does not exist fails before it comes to that."""
        raise PermissionDenied("this may not be done with that qube")


def as_seen(core: Core, method: Method, command: Command, call: Call, ground: Ground) -> Core:
    """The core as the caller may know it: without the hidden qubes that the call itself names.

    A qube that comes in by a default which dom0 chose stays, since the caller asks nothing about it.
    Raises ``QubesError`` where the method cannot tell what the call touches.
    """
    if method.touches is None:
        return core
    words = _words(call)
    qubes = (core.system.qubes.get(name) for name in method.touches(core, command))
    absent = [qube.name for qube in qubes if qube and _is_named(qube, words) and hidden(ground, qube.name)]
    return CoreWithout(core, absent) if absent else core


def _words(call: Call) -> set[str]:
    """What of the argument and the payload could stand for a qube."""
    text = call.payload.decode("latin-1")
    return {*_WORD.findall(call.argument), *_WORD.findall(text), *text.split()}


def _is_named(qube: Qube, words: Set[str]) -> bool:
    """Whether its name, its uuid or the vid of a volume of its own is among the words."""
    vids = (volume.vid for volume in qube.volumes.values())
    return not words.isdisjoint((qube.name, f"uuid:{qube.uuid}", *vids))
