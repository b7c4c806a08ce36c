"""The laws of the queue: bounded, in order, and fair between sources whatever they do."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.prompts.queue import Queue

EACH, ALTOGETHER = 3, 7


def test_sources_take_turns() -> None:
    queue: Queue[str] = Queue()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.add(item[0], item)
    assert [queue.take() for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", None]


def test_who_asks_again_comes_after_those_who_waited() -> None:
    queue: Queue[str] = Queue()
    queue.add("a", "a1")
    queue.add("b", "b1")
    assert queue.take() == "a1"
    queue.add("a", "a2")
    assert [queue.take(), queue.take()] == ["b1", "a2"]


@pytest.mark.parametrize(
    ("before", "item", "displaced"),
    [
        pytest.param(["a1", "a2"], "a3", None, id="room"),
        pytest.param(["a1", "a2", "a3"], "a4", "a4", id="own-room-is-full"),
        pytest.param(["a1", "a2", "a3", "b1"], "c1", "a3", id="the-greediest-gives-its-last"),
        pytest.param(["a1", "a2", "b1", "b2"], "c1", "a2", id="even-ones-give-too"),
        pytest.param(["a1", "a2", "b1", "c1"], "b2", "b2", id="nobody-gains-by-asking-more"),
        pytest.param(["a1", "b1", "c1", "d1"], "e1", "e1", id="nobody-has-more-than-one"),
    ],
)
def test_who_gives_way(before: list[str], item: str, displaced: str | None) -> None:
    queue: Queue[str] = Queue(each=3, altogether=4)
    for waiting in before:
        assert queue.add(waiting[0], waiting) is None
    assert queue.add(item[0], item) == displaced


class Fairness(RuleBasedStateMachine):
    """Against a plain account of what waits, and of whom has been passed over how often."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: Queue[tuple[str, int]] = Queue(EACH, ALTOGETHER)
        self.waiting: list[tuple[str, int]] = []
        self.number = 0
        self.passed: Counter[tuple[str, str]] = Counter()
        """How often the second was taken since the first has waited without a break."""

    def of(self, source: str) -> list[tuple[str, int]]:
        return [item for item in self.waiting if item[0] == source]

    @rule(source=st.sampled_from("abcdefghi"))
    def add(self, source: str) -> None:
        self.number += 1
        item = (source, self.number)
        before = Counter(source for source, _ in self.waiting)
        displaced = self.queue.add(source, item)
        self.waiting.append(item)
        if displaced is not None:
            self.waiting.remove(displaced)
            if displaced == item:
                full = len(self.waiting) == ALTOGETHER
                most = max(before.values())
                assert before[source] == EACH or (full and most <= before[source] + 1)
            else:
                assert all(earlier < displaced for earlier in self.of(displaced[0]))
                assert before[displaced[0]] == max(before.values()) > before[source] + 1
        self.forget_the_idle()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.waiting))
        assert self.queue.remove(item[0], item)
        assert not self.queue.remove(item[0], item)
        self.waiting.remove(item)
        self.forget_the_idle()

    @rule()
    def take(self) -> None:
        item = self.queue.take()
        if item is None:
            assert not self.waiting
            return
        assert item == self.of(item[0])[0], "a source's own questions come in their order"
        self.waiting.remove(item)
        for source in {source for source, _ in self.waiting} - {item[0]}:
            self.passed[source, item[0]] += 1
            assert self.passed[source, item[0]] <= 1, f"{item[0]} went twice while {source} waited"
        for other in "abcdefghi":
            self.passed.pop((item[0], other), None)
        self.forget_the_idle()

    def forget_the_idle(self) -> None:
        for source in set("abcdefghi") - {source for source, _ in self.waiting}:
            for other in "abcdefghi":
                self.passed.pop((source, other), None)

    @invariant()
    def bounded(self) -> None:
        assert len(self.queue) == len(self.waiting) <= ALTOGETHER
        assert all(count <= EACH for count in Counter(source for source, _ in self.waiting).values())


TestFairness = Fairness.TestCase
