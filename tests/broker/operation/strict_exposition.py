"""The text format of Prometheus 0.0.4, read as strictly as its description has it; Prometheus' own library in
Python lets much through that the description forbids."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_TEXT = r"(?:[^\\\n]|\\\\|\\n)*"
_VALUE = r'(?:[^"\\\n]|\\\\|\\n|\\")*'
_LABEL = rf'[a-zA-Z_][a-zA-Z0-9_]*="{_VALUE}"'
_HELP = re.compile(rf"# HELP (?P<name>{_NAME}) (?P<text>{_TEXT})")
_TYPE = re.compile(rf"# TYPE (?P<name>{_NAME}) (?P<kind>counter|gauge|histogram|summary|untyped)")
_SAMPLE = re.compile(
    rf"(?P<name>{_NAME})(?:\{{(?P<labels>{_LABEL}(?:,{_LABEL})*)\}})? "
    r"(?P<value>[+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Inf)|NaN)"
)
_EACH = re.compile(rf'([a-zA-Z_][a-zA-Z0-9_]*)="({_VALUE})"')
_SUFFIXES = ("_bucket", "_sum", "_count")

Labels = frozenset[tuple[str, str]]
Samples = dict[tuple[str, Labels], float]


def read_strictly(document: str) -> Samples:
    """The samples by name and labels; ``AssertionError`` where the document is not as the format demands."""
    assert document.endswith("\n")
    found: Samples = {}
    kinds: dict[str, str] = {}
    for name, kind, lines in _families(document.removesuffix("\n").split("\n")):
        assert name not in kinds, f"{name} has two groups"
        kinds[name] = kind
        own: Samples = {}
        for line in lines:
            sample, labels, value = _sample(line)
            assert sample in _names(name, kind), f"{line!r} stands among those of {name}"
            assert (sample, labels) not in own, f"{line!r} stands twice"
            own[sample, labels] = value
        if kind == "counter":
            assert name.endswith("_total")
            assert all(value >= 0 for value in own.values())
        elif kind == "histogram":
            _check_histogram(name, own)
        found |= own
    return found


def _families(lines: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """The name, the kind and the samples of each group, which begins with one HELP and one TYPE."""
    starts = [number for number, line in enumerate(lines) if line.startswith("# HELP ")]
    assert starts[:1] == [0]
    for start, end in pairwise([*starts, len(lines)]):
        told, typed = _HELP.fullmatch(lines[start]), _TYPE.fullmatch(lines[start + 1])
        assert told is not None, lines[start]
        assert typed is not None, lines[start + 1]
        assert told["name"] == typed["name"]
        assert told["text"]
        yield told["name"], typed["kind"], lines[start + 2 : end]


def _sample(line: str) -> tuple[str, Labels, float]:
    match = _SAMPLE.fullmatch(line)
    assert match is not None, line
    each = _EACH.findall(match["labels"] or "")
    assert len({name for name, _ in each}) == len(each), f"{line!r} has a label twice"
    assert not any(name.startswith("__") for name, _ in each), f"{line!r} has a label that is reserved"
    return match["name"], frozenset(each), float(match["value"])


def _names(name: str, kind: str) -> tuple[str, ...]:
    return tuple(name + suffix for suffix in _SUFFIXES) if kind == "histogram" else (name,)


def _check_histogram(name: str, own: Samples) -> None:
    """Each set of labels has its parts in order, each with those before it, the last of which is all."""
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (sample, labels), value in own.items():
        bound = dict(labels).get("le")
        assert (bound is not None) == sample.endswith("_bucket")
        without = frozenset(one for one in labels if one[0] != "le")
        series.setdefault(without, [])
        if bound is not None:
            series[without].append((float(bound), value))
    for labels, parts in series.items():
        assert parts == sorted(parts)
        assert [count for _, count in parts] == sorted(count for _, count in parts)
        assert parts[-1] == (math.inf, own.get((f"{name}_count", labels)))
        assert own.get((f"{name}_sum", labels), -1) >= 0
