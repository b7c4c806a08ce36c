"""One question at a time, each for so long; notes in between, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st

from broker.prompts.desk import Desk, Ticket
from broker.prompts.messages import Note
from broker.prompts.notes import Notes
from broker.prompts.queue import Queue
from tests.broker.prompts.agent_rig import Person, note, question


class Callers:
    """Those who ask, and what they were answered."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.answers: list[str] = []

    def ask(self, source: str) -> Ticket:
        ticket = Ticket(question(source=source), lambda target: self.answers.append(f"{source} {target}"))
        self._desk.ask(ticket)
        return ticket


def at_the_desk(guest: Callable[[Desk, Person, Callers], Awaitable[None]], timeout: float = 20.0) -> None:
    async def stay() -> None:
        person = Person()
        desk = Desk(person, timeout, Queue(each=2), note_interval=0.01)
        await guest(desk, person, Callers(desk))
        desk.close()

    asyncio.run(stay())


def test_one_question_is_shown_at_a_time_and_has_its_own_answer() -> None:
    async def guest(desk: Desk, person: Person, callers: Callers) -> None:
        for source in "abc":
            callers.ask(source)
        await person.until("? a qubes.Filecopy")
        person.say("vault")
        await person.until("? b qubes.Filecopy")
        person.say(None)
        await person.until("? c qubes.Filecopy")
        person.say("personal")
        assert callers.answers == ["a vault", "b None", "c personal"]

    at_the_desk(guest)


def test_a_flood_is_denied_and_another_source_comes_next() -> None:
    async def guest(desk: Desk, person: Person, callers: Callers) -> None:
        for _ in range(50):
            callers.ask("evil")
        callers.ask("good")
        assert callers.answers == ["evil None"] * 47
        await person.until("? evil qubes.Filecopy")
        person.say(None)
        callers.ask("evil")
        await person.until("? evil qubes.Filecopy")
        person.say(None)
        await person.until("? good qubes.Filecopy")

    at_the_desk(guest)


def test_what_is_said_to_a_question_that_is_gone_is_for_no_other_one() -> None:
    async def guest(desk: Desk, person: Person, callers: Callers) -> None:
        callers.ask("a")
        word = person.answer
        assert word is not None
        callers.ask("b")
        await person.until("? a qubes.Filecopy", "gone: time is up", "? b qubes.Filecopy")
        word("vault")
        word(None)
        assert callers.answers == ["a None"]
        await person.until("gone: time is up")
        assert callers.answers == ["a None", "b None"]

    at_the_desk(guest, timeout=0.1)


def test_a_question_is_withdrawn_wherever_it_is() -> None:
    async def guest(desk: Desk, person: Person, callers: Callers) -> None:
        shown, waiting, last = (callers.ask(source) for source in "abc")
        desk.withdraw(waiting)
        desk.withdraw(shown)
        await person.until("? a qubes.Filecopy", "gone: whoever asked has gone", "? c qubes.Filecopy")
        desk.withdraw(last)
        desk.withdraw(last)
        await person.until("gone: whoever asked has gone")
        assert callers.answers == []

    at_the_desk(guest)


def test_notes_wait_for_the_question_and_are_told_as_one() -> None:
    async def guest(desk: Desk, person: Person, callers: Callers) -> None:
        callers.ask("a")
        for _ in range(1_000):
            desk.tell(note(source="evil"))
        desk.tell(note(source="evil", resolution="allow"))
        desk.tell(note(source="good"))
        await asyncio.sleep(0.05)
        await person.until("? a qubes.Filecopy")
        person.say(None)
        await person.until("! deny evil 999", "! allow evil 0", "! deny good 0")

    at_the_desk(guest)


def test_a_question_comes_before_the_notes_that_wait() -> None:
    async def guest(desk: Desk, person: Person, callers: Callers) -> None:
        desk.tell(note(source="x"))
        desk.tell(note(source="y"))
        callers.ask("a")
        await person.until("! deny x 0", "? a qubes.Filecopy")
        person.say(None)
        await person.until("! deny y 0")

    at_the_desk(guest)


def test_an_agent_that_ends_shows_nothing_more() -> None:
    async def guest(desk: Desk, person: Person, callers: Callers) -> None:
        first, second = callers.ask("a"), callers.ask("b")
        desk.close()
        desk.withdraw(first)
        desk.withdraw(second)
        await person.until("? a qubes.Filecopy", "gone: the agent ends")
        assert callers.answers == []

    at_the_desk(guest)


_NOTES = st.builds(
    lambda source, resolution: note(source=source, resolution=resolution),
    st.sampled_from("abcdef"),
    st.sampled_from(("allow", "deny", "fail")),
)


@given(st.lists(_NOTES), st.integers(1, 20))
def test_of_every_source_something_of_each_kind_is_told(notes: list[Note], most: int) -> None:
    kept = Notes(most)
    for one in notes:
        kept.add(one)
    told = list(iter(kept.take, None))
    keys = [(one.note.source, one.note.resolution) for one in told]
    first_seen = list(dict.fromkeys((one.source, one.resolution) for one in notes))
    assert keys == first_seen[:most]
    counted = [1 + others for _, others in told]
    assert counted == [sum((one.source, one.resolution) == key for one in notes) for key in keys]
