"""What is counted of calls as they end. Nothing in it is named by a caller: services are those of the method
table, and all that are not are one."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from broker.audit import Record
from broker.operation.exposition import Family, Histogram, Sample, by_label, counter

OTHER = "other"
"""Stands for every service that is not in the table."""


class Tally:
    """Counts calls of these services."""

    def __init__(self, services: Collection[str]) -> None:
        self._services = frozenset(services)
        self._calls: dict[tuple[str, str], int] = {}
        self._decisions = dict.fromkeys(("allow", "ask", "deny", "unjudged"), 0)
        self._latencies: dict[str, Histogram] = {}

    def count(self, record: Record) -> None:
        """A call has ended, or begun to be a stream."""
        service = record.service if record.service in self._services else OTHER
        ended = service, record.outcome
        self._calls[ended] = self._calls.get(ended, 0) + 1
        self._decisions[record.decision] += 1
        latencies = self._latencies.get(service)
        if latencies is None:
            latencies = self._latencies[service] = Histogram()
        latencies.observe(record.duration)

    def families(self) -> Iterator[Family]:
        yield counter(
            "qubesd_calls_total",
            "Calls of the Admin API that have ended, by service and outcome.",
            (
                Sample(count, {"service": service, "outcome": outcome})
                for (service, outcome), count in sorted(self._calls.items())
            ),
        )
        yield counter(
            "qubesd_decisions_total",
            "What the policy said of calls of the Admin API.",
            by_label("decision", self._decisions),
        )
        yield Family(
            "qubesd_call_duration_seconds",
            "histogram",
            "Seconds from a whole request to its answer, those of a question to the user among them.",
            (
                sample
                for service, latencies in sorted(self._latencies.items())
                for sample in latencies.samples({"service": service})
            ),
        )
