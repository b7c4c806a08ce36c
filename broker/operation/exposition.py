"""Figures in the text format of Prometheus, version 0.0.4.

Written here rather than with the well-known library: that one brings locks for each count, an HTTP server
over TCP, and a package into dom0, for what is fifty lines. The tests read what is written with its parser.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0)
"""Seconds up to which the latencies in each part of a histogram go; the last part has no end."""

Labels = Mapping[str, str]
NO_LABELS: Labels = {}


class Sample(NamedTuple):
    """``suffix`` goes behind the name of the family."""

    value: float
    labels: Labels = NO_LABELS
    suffix: str = ""


class Family(NamedTuple):
    """All samples of one name. ``kind`` is ``counter``, ``gauge`` or ``histogram``."""

    name: str
    kind: str
    help: str
    samples: Iterable[Sample]


@dataclass(slots=True)
class Histogram:
    """How many took how long."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    sum: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def samples(self, labels: Labels = NO_LABELS) -> Iterator[Sample]:
        total = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            total += count
            yield Sample(total, {**labels, "le": bound}, "_bucket")
        yield Sample(self.sum, labels, "_sum")
        yield Sample(total, labels, "_count")


def counter(name: str, help: str, samples: Iterable[Sample]) -> Family:
    """One that only grows; its name ends in ``_total``."""
    return Family(name, "counter", help, samples)


def gauge(name: str, help: str, value: float, labels: Labels = NO_LABELS) -> Family:
    return Family(name, "gauge", help, (Sample(value, labels),))


def by_label(label: str, counts: Mapping[str, float]) -> Iterator[Sample]:
    """A sample for each value of one label."""
    return (Sample(count, {label: value}) for value, count in counts.items())


def text(families: Iterable[Family]) -> str:
    """The whole document."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"
    for sample in family.samples:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
        braced = f"{{{labels}}}" if labels else ""
        yield f"{family.name}{sample.suffix}{braced} {sample.value!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
