"""One call on its way through the dispatcher, for its audit record."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from broker.audit import Record
from broker.call_id import CALL
from broker.judge import UNJUDGED, Verdict
from qubesd.api.call import Call


@dataclass(slots=True)
class Case:
    """What is recorded of a call.

    Attributes:
        id: the caller's count of its own calls.
        started: in seconds of the epoch.
        number: the daemon's count of all calls.
        begun: the same on the clock that durations are taken with.
        uuid: of the caller; empty where there is none.
    """

    call: Call
    caller: str
    id: int
    started: float
    begun: float
    uuid: str = ""
    verdict: Verdict = UNJUDGED
    number: int = field(default_factory=CALL.get)

    def record(self, outcome: str) -> Record:
        call, verdict = self.call, self.verdict
        return Record(
            self.started,
            self.id,
            self.caller,
            call.service,
            call.argument,
            call.target,
            verdict.decision,
            verdict.reason,
            verdict.place,
            time.perf_counter() - self.begun,
            outcome,
            self.number,
        )
