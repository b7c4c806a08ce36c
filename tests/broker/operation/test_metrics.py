"""The figures: in the form that Prometheus reads, right, and without a name that a qube chose."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from broker.audit import Record
from broker.client import call, connect, received
from broker.operation.exposition import BOUNDS, Family, Histogram, Sample, counter, gauge, text
from broker.operation.metrics import Collector
from broker.operation.tally import OTHER, Tally
from tests.broker.operation.strict_exposition import read_strictly
from tests.broker.rig import Daemon, answer, exchange, listening, serving

Figures = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def read(document: str) -> Figures:
    """By the parser of Prometheus' own library, which is not used to write them; and strictly."""
    figures = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(document)
        for sample in family.samples
    }
    assert len(read_strictly(document)) == len(figures)
    return figures


@pytest.mark.parametrize(
    "document",
    [
        pytest.param("# HELP x X.\n# TYPE x gauge\nx 1", id="no-last-line-end"),
        pytest.param("# TYPE x gauge\nx 1\n", id="no-help"),
        pytest.param("# HELP x X.\n# TYPE x meter\nx 1\n", id="kind"),
        pytest.param("# HELP x X.\n# TYPE x gauge\ny 1\n", id="another-name"),
        pytest.param("# HELP x X.\n# TYPE x gauge\nx 1\nx 2\n", id="twice"),
        pytest.param("# HELP x X.\n# TYPE x counter\nx 1\n", id="counter"),
        pytest.param("# HELP x_total X.\n# TYPE x_total counter\nx_total -1\n", id="below-nothing"),
        pytest.param('# HELP x X.\n# TYPE x gauge\nx{a="\\z"} 1\n', id="escape"),
        pytest.param('# HELP x X.\n# TYPE x gauge\nx{a="1",a="2"} 1\n', id="label-twice"),
        pytest.param("# HELP x X.\n# TYPE x gauge\nx True\n", id="no-number"),
        pytest.param(
            '# HELP x X.\n# TYPE x histogram\nx_bucket{le="1"} 1\nx_sum 1\nx_count 1\n', id="no-end"
        ),
        pytest.param(
            "# HELP x X.\n# TYPE x histogram\n"
            'x_bucket{le="1"} 2\nx_bucket{le="+Inf"} 1\nx_sum 1\nx_count 1\n',
            id="not-with-those-before",
        ),
        pytest.param("# HELP x X.\n# TYPE x gauge\n# HELP x X.\n# TYPE x gauge\n", id="two-groups"),
    ],
)
def test_what_is_not_as_the_format_demands(document: str) -> None:
    with pytest.raises(AssertionError):
        read_strictly(document)


def figure(figures: Figures, name: str, **labels: str) -> float:
    return figures[name, frozenset(labels.items())]


@given(st.dictionaries(st.text(), st.integers(0, 2**53) | st.floats(0, 1e9)))
def test_what_is_written_is_read_again(counts: dict[str, float]) -> None:
    family = counter("x_total", "Some.", [Sample(count, {"of": name}) for name, count in counts.items()])
    figures = read(text([family, gauge("y", "One.", 7)]))
    assert figure(figures, "y") == 7
    assert {name: figure(figures, "x_total", of=name) for name in counts} == counts


@given(st.lists(st.floats(0, 1000)))
def test_a_histogram_counts_each_up_to_its_bound(seconds: list[float]) -> None:
    histogram = Histogram()
    for one in seconds:
        histogram.observe(one)
    figures = read(text([Family("x", "histogram", "Some.", histogram.samples())]))
    for bound in BOUNDS:
        assert figure(figures, "x_bucket", le=str(bound)) == sum(one <= bound for one in seconds)
    assert figure(figures, "x_bucket", le="+Inf") == figure(figures, "x_count") == len(seconds)
    assert figure(figures, "x_sum") == pytest.approx(sum(seconds))


@given(st.lists(st.text(), max_size=20))
def test_what_callers_choose_makes_no_figure(services: list[str]) -> None:
    tally = Tally({"admin.vm.List"})
    for service in services:
        tally.count(Record(0.0, 1, service, service, service, service, "deny", service, "", 0.1, "denied"))
    assert {
        labels["service"]
        for family in tally.families()
        for _, labels, _ in family.samples
        if "service" in labels
    } <= {OTHER}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK", id="1.1"),
        pytest.param(b"GET /metrics?x=1 HTTP/1.0\n\n", b"200 OK", id="query"),
        pytest.param(b"HEAD /metrics HTTP/1.0\r\n\r\n", b"200 OK", id="head"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", b"404 Not Found", id="elsewhere"),
        pytest.param(b"POST /metrics HTTP/1.0\r\n\r\n", b"405 Method Not Allowed", id="post"),
        pytest.param(b"\r\n\r\n", b"405 Method Not Allowed", id="nothing"),
    ],
)
def test_the_little_of_http_that_is_spoken(request_: bytes, status: bytes) -> None:
    collector = Collector(lambda: [gauge("x", "One.", 1)])
    assert collector.is_whole(request_)
    assert not collector.is_whole(request_[:-1])
    head, _, body = collector.answer(request_).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 " + status)
    if request_.startswith(b"HEAD"):
        assert body == b""
    else:
        assert f"Content-Length: {len(body)}".encode() in head


def scraped(daemon: Daemon) -> str:
    """As a collector has it, which keeps its end open."""
    with connect(daemon.root / "run/qubes/metrics.sock", 20.0) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head, _, body = b"".join(received(connection)).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    return body


def test_a_daemon_tells_what_it_does(tmp_path: Path) -> None:
    with serving(tmp_path, "admin.vm.property.Get * zora zora allow target=dom0\n") as daemon:
        daemon.create("zora")
        before = read(scraped(daemon))
        for name in ("label", "netvm"):
            call(daemon.channel("zora"), "admin.vm.property.Get", "zora", name)
        answer(daemon.channel("zora"), "admin.vm.Start", "zora")
        answer(daemon.socket, "zora.Service", "zora", "zora")
        with listening(daemon.socket), socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(daemon.socket))
            busy = read(scraped(daemon))
        question = b"source=zora\nintended_target=zora\nservice_and_arg=zora.X+\n\n"
        assert exchange(tmp_path / "run/qubes/policy.sock", question) == b"result=deny"
        document = scraped(daemon)
        after = read(document)
        (mode,) = {path.stat().st_mode & 0o777 for path in [tmp_path / "run/qubes/metrics.sock"]}
    called = {"service": "admin.vm.property.Get", "outcome": "ok"}
    assert figure(after, "qubesd_calls_total", **called) == 2
    assert figure(after, "qubesd_calls_total", service="admin.vm.Start", outcome="denied") == 1
    assert figure(after, "qubesd_call_duration_seconds_count", service="admin.vm.property.Get") == 2
    assert figure(after, "qubesd_decisions_total", decision="allow") == 2
    assert figure(after, "qubesd_decisions_total", decision="deny") == 1
    assert figure(after, "qubesd_qrexec_answers_total", answer="deny") == 1
    assert figure(after, "qubesd_store_saves_total", outcome="ok") == 1
    assert figure(after, "qubesd_qubes") == 2
    assert figure(after, "qubesd_policy_reloads_total", outcome="ok") == 1
    assert (figure(before, "qubesd_event_listeners"), figure(busy, "qubesd_event_listeners")) == (0, 1)
    assert (figure(before, "qubesd_connections"), figure(busy, "qubesd_connections")) == (0, 2)
    assert {labels for name, labels in after if name == "qubesd_build_info"}
    assert "zora" not in document
    assert mode == 0o660
