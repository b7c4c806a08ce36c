"""The figures of a daemon, taken when they are asked for, and the little of HTTP that a collector speaks."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from broker.audit import AuditLog
from broker.deciding.sockets import PolicySockets
from broker.judge import PolicyInForce
from broker.operation.exposition import CONTENT_TYPE, Family, Sample, by_label, counter, gauge, text
from broker.prompter import Prompter
from policy_engine import Policy

if TYPE_CHECKING:
    # A daemon without a core has none, and does not load one.
    from broker.serve import House
    from broker.streams import Streams
    from qubesd.store.commit import GroupCommit

_STARTED = time.time()
_END = b"\r\n\r\n"


class Collector:
    """Answers ``GET /metrics`` with what ``families`` has, and nothing else."""

    def __init__(self, families: Callable[[], Iterable[Family]]) -> None:
        self._families = families

    def is_whole(self, untrusted_request: bytes) -> bool:
        return _END in untrusted_request or b"\n\n" in untrusted_request

    def answer(self, untrusted_request: bytes) -> bytes:
        """A whole answer of HTTP/1.0, whatever was asked."""
        words = untrusted_request.split(b"\n", 1)[0].split()
        method, path = (words[0], words[1].partition(b"?")[0]) if len(words) > 1 else (b"", b"")
        if method not in (b"GET", b"HEAD"):
            return _answer("405 Method Not Allowed", "only GET /metrics is answered here\n", "text/plain")
        if path != b"/metrics":
            return _answer("404 Not Found", "only /metrics is here\n", "text/plain")
        answer = _answer("200 OK", text(self._families()), CONTENT_TYPE)
        return answer if method == b"GET" else answer[: answer.index(_END) + len(_END)]


def _answer(status: str, content: str, content_type: str) -> bytes:
    body = content.encode("utf-8")
    head = f"HTTP/1.0 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body


def of_process(program: str) -> Iterator[Family]:
    """What is running, since when, and what it takes of the machine."""
    yield gauge("qubesd_build_info", "The program and its version.", 1, _build(program))
    yield gauge("process_start_time_seconds", "When it was started, in seconds of the epoch.", _STARTED)
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    yield gauge("process_resident_memory_bytes", "Memory that it takes.", pages * resource.getpagesize())
    yield gauge("process_open_fds", "Descriptors that it has open.", len(os.listdir("/proc/self/fd")))
    yield gauge(
        "process_max_fds", "Descriptors that it may open.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    )


def _build(program: str) -> dict[str, str]:
    try:
        return {"program": program, "version": version("qubes-admin-core")}
    except PackageNotFoundError:  # it runs out of a checkout
        return {"program": program, "version": "unknown"}


def of_policy(policies: PolicyInForce) -> Iterator[Family]:
    """The policy in force."""
    now = policies.now
    yield counter(
        "qubesd_policy_reloads_total",
        "Readings of the policy, by whether it loaded.",
        by_label("outcome", policies.readings),
    )
    yield gauge(
        "qubesd_policy_in_force", "1 where a policy is, 0 where all is denied.", int(isinstance(now, Policy))
    )
    yield gauge(
        "qubesd_policy_as_files",
        "0 where what is in force is not what the files say, since they do not load.",
        int(policies.error is None),
    )
    yield gauge("qubesd_policy_rules", "Rules in force.", len(now.rules) if isinstance(now, Policy) else 0)
    yield gauge("qubesd_policy_since_seconds", "When it came into force.", policies.since)


def of_questions(sockets: PolicySockets, prompter: Prompter) -> Iterator[Family]:
    """What the qrexec daemon asks, and what the user is asked."""
    yield counter(
        "qubesd_qrexec_answers_total",
        "Questions of the qrexec daemon, and evaluations, by what was answered.",
        by_label("answer", sockets.answers),
    )
    yield counter(
        "qubesd_policy_silent_total",
        "Connections to the policy sockets that ended without a byte.",
        (Sample(sockets.silent),),
    )
    yield gauge("qubesd_policy_connections", "Open connections to the policy sockets.", sockets.connections)
    yield gauge("qubesd_questions_waiting", "Questions that wait for a user.", prompter.waiting)


def of_calls(house: House, streams: Streams) -> Iterator[Family]:
    """What is under way."""
    yield gauge("qubesd_connections", "Open connections to the sockets of the Admin API.", house.connections)
    yield gauge("qubesd_calls_running", "Calls that wait for something.", house.running)
    yield gauge("qubesd_event_listeners", "Open streams of events.", len(streams.listeners))


def of_store(commit: GroupCommit) -> Iterator[Family]:
    """Writes of the store; many changes may share one."""
    yield counter("qubesd_store_saves_total", "Writes of the store.", by_label("outcome", commit.saves))
    yield counter("qubesd_store_seconds_total", "Seconds spent on that.", (Sample(commit.seconds),))
    yield gauge("qubesd_store_waiting", "Changes that wait to be durable.", commit.waiting)
    yield gauge("qubesd_qubes", "Qubes in the store, dom0 among them.", len(commit.written.qubes))


def of_audit(audit: AuditLog) -> Iterator[Family]:
    yield counter("qubesd_audit_lost_total", "Audit records that were lost.", (Sample(audit.lost),))
    yield gauge("qubesd_audit_waiting_bytes", "Audit records that wait for the disk.", audit.waiting)
    yield gauge("qubesd_audit_stalled", "1 while the disk takes no audit records.", int(audit.stalled))
