"""The user's word on a call of the Admin API that a rule asks about.

The question is put when all is known of the call, so that it shows what the call is about and what it brings,
and nobody is asked about a call that is denied or cannot be. A yes is taken down as a ``Consent``, whether
``policy.sock`` puts the question or the dispatcher, and used by the call when it is judged again.
"""

from __future__ import annotations

from broker.consent import Consents, Wish, digest_of
from broker.judge import Ground
from broker.particulars import particulars
from broker.preparation import Prepared
from broker.prompter import Prompter, note_of
from broker.put import put, told
from policy_engine import Allowed, Asked, Denied, Request, settle
from qubesd.api.call import Call
from qubesd.model.state import DOM0


class Asking:
    """Knows what users said, and asks them."""

    def __init__(self, prompter: Prompter, consents: Consents) -> None:
        self._prompter = prompter
        self._consents = consents

    def wish(self, prepared: Prepared, call: Call, service: str) -> Wish:
        """What a yes to this call is a yes to, as its caller may know it. Raises ``QubesError`` where what it
        touches cannot be told."""
        command, qubes = prepared.command, prepared.core.system.qubes
        about = particulars(prepared.core, prepared.method, command)
        touched = tuple((name, qubes[name].uuid if name in qubes else "") for name in about.subjects)
        digest = digest_of(call.payload)
        return Wish(command.caller.uuid, command.target.uuid, service, call.argument, digest, touched)

    def has_agreed(self, wish: Wish, ground: Ground, asked: Asked) -> bool:
        """Whether the user said yes to this very call; a yes for one call is used up by this."""
        return self._consents.use(wish, ground.policy, asked.rule)

    def remembers(self, wish: Wish, ground: Ground, asked: Asked) -> bool:
        """Whether a yes to this wish is remembered, and nobody has to be asked."""
        return self._consents.covers(wish, ground.policy, asked.rule)

    def agree(self, wish: Wish, ground: Ground, asked: Asked) -> int:
        """Take down that the user said yes; the number of this yes."""
        return self._consents.give(wish, ground.policy, asked.rule)

    def withdraw(self, wish: Wish, number: int) -> None:
        """A yes that was not used counts no more: what it was given for has changed."""
        self._consents.withdraw(wish, number)

    async def ask(
        self, prepared: Prepared, call: Call, service: str, ground: Ground, asked: Asked
    ) -> Allowed | Denied:
        """Put the question and wait for the answer; who is not told yes is told no."""
        if asked.served_by is None:
            # Elsewhere than in dom0 there is nothing that could carry it out from here.
            asked = asked._replace(targets=(DOM0,))
        text = self.text(prepared, call, asked)
        request = Request(service, text, call.source, call.target)
        untrusted_answer = await self._prompter.ask(asked, request, ground.world)
        decision = settle(asked, untrusted_answer, ground.world)
        if decision.notify:
            name, about = prepared.command.caller.name, prepared.command.target.name
            resolution = "allow" if isinstance(decision, Allowed) else "deny"
            self._prompter.tell(note_of(ground.world, request, resolution, name, about))
        return decision

    def text(self, prepared: Prepared, call: Call, asked: Asked) -> str:
        """What stands for the argument in the question."""
        method, command = prepared.method, prepared.command
        return put(call.argument, asked, command.target.name, told(method, command.value, call.payload))
