"""A call of the Admin API when the qrexec daemon asks about it, before it comes to ``qubesd.sock``.

A question about a call that has no payload can be put now; one about any other waits for the payload, and the
call is let through to where it is judged again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from broker.asking import Asking
from broker.consent import Wish
from broker.contract import Methods
from broker.deciding.pending import Pending
from broker.identity import find_qube
from broker.judge import Ground
from broker.preparation import Preparation
from policy_engine import Asked, Request, World
from qubesd.api.call import Call
from qubesd.api.method import Need
from qubesd.errors import QubesError
from qubesd.model.state import DOM0

if TYPE_CHECKING:
    from qubesd.core.core import Core


class Expected(NamedTuple):
    """A call that is known whole before it comes. ``text`` stands for its argument in the question."""

    wish: Wish
    text: str


class Beforehand:
    """Knows the calls that come to this daemon.

    Args:
        methods: what can be called.
        programs: services that a program of dom0 carries out by calls of its own, which are judged as these.
    """

    def __init__(
        self,
        core: Core,
        methods: Methods,
        programs: Collection[str],
        preparation: Preparation,
        asking: Asking,
    ) -> None:
        self._core = core
        self._methods = methods
        self._programs = programs
        self._preparation = preparation
        self._asking = asking

    def comes_here(self, service: str, asked: Asked) -> bool:
        """Whether the call, if it is let through, is judged again by this daemon."""
        to_dom0 = asked.served_by == DOM0 or asked.targets == (DOM0,)
        return to_dom0 and (service in self._methods or service in self._programs)

    def expected(self, request: Request, asked: Asked, ground: Ground) -> Expected | None:
        """The call as it will come; ``None`` where the question has to wait for it, or where the call will be
        refused without one."""
        target = DOM0 if asked.requested_target == "@adminvm" else asked.requested_target
        call = Call(request.service, request.argument[1:], asked.source, target, b"")
        method = self._methods.get(call.service)
        if method is None or method.payload is not Need.FORBIDDEN:
            return None
        try:
            caller = find_qube(call.source, self._core.system)
            verdict = ground.judge(call.service, call.argument, call.target)
            prepared = self._preparation.prepare(self._methods, call, call.service, caller, ground, verdict)
            if not prepared.verdict.allowed:
                return None
            wish = self._asking.wish(prepared, call, call.service)
        except QubesError:
            return None
        return Expected(wish, self._asking.text(prepared, call, asked))

    def remembers(self, expected: Expected, ground: Ground, asked: Asked) -> bool:
        """Whether nobody has to be asked, since an earlier yes is remembered."""
        return self._asking.remembers(expected.wish, ground, asked)

    def agree(self, expected: Expected, pending: Pending, world: World) -> bool:
        """Take down that the user said yes, for the call to be carried out on when it comes; whether it is
        still the one that was asked about, in the world as it is by now."""
        asked, request, policy, _ = pending
        ground = Ground(policy, world, asked.source)
        if self.expected(request, asked, ground) != expected:
            return False
        self._asking.agree(expected.wish, ground, asked)
        return True
