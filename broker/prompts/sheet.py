"""A question, and a note, as lines for a terminal. Every line begins with words of ours, so that no text of
others, however long, passes for one of them."""

from __future__ import annotations

from collections.abc import Iterator

from broker.colour import Colours
from broker.prompts.keys import Keys
from broker.prompts.messages import Question
from broker.prompts.notes import Told
from broker.prompts.texts import MOST, Shown, service_parts, shown, time_left

_MARGIN = 22
"""Characters before a text, which its further lines have too."""

_NARROWEST = 20
"""Characters of a text in one line, however narrow the terminal is."""


def question_lines(question: Question, columns: int, rows: int, colours: Colours) -> list[str]:
    """The question without its prompt. Who asks for what is scrolled away neither by the choices, which come
    first where all do not fit on the screen, nor by long texts, which get as many lines as there are."""
    facts = list(_facts(question, columns, rows, colours))
    choices = list(_choices(question, colours))
    heading = colours.title(question.heading)
    if len(facts) + len(choices) + 5 <= rows:
        return ["", heading, "", *facts, "", *choices, ""]
    return ["", *choices, "", heading, "", *facts, ""]


def note_line(told: Told, colours: Colours) -> str:
    """What came of a call, in one line."""
    note = told.note
    word = {
        "allow": colours.good("allowed"),
        "deny": colours.bad("denied"),
        "fail": colours.bad("failed"),
    }[note.resolution]
    argument = "" if note.untrusted_argument == "+" else _joined(shown(note.untrusted_argument, 60))
    target = _joined(shown(note.untrusted_target, 60))
    others = f" (and {told.others} more from {note.source})" if told.others else ""
    return f"{word}: {note.service}{argument} from {note.source} to {target}{others}"


def _facts(question: Question, columns: int, rows: int, colours: Colours) -> Iterator[str]:
    ours = [_field("source", question.source)]
    if question.service is not None:
        ours += _service(question.service, columns, colours)
    yield from ours
    told = question.untrusted_facts
    # The heading, two empty lines and the prompt are there too, and a line for each text that is cut.
    room = (rows - len(ours) - 4) // max(1, len(told)) - 1
    for name, untrusted_text in told:
        yield from _fields(name, untrusted_text, columns, max(1, room), colours)


def _choices(question: Question, colours: Colours) -> Iterator[str]:
    for number, target in enumerate(question.targets, 1):
        default = colours.good("  default") if target == question.default_target else ""
        yield f"{number:6}  {target}{default}"


def _field(name: str, text: str) -> str:
    return f"  {name:<{_MARGIN - 4}}| {text}"


def _service(service: str, columns: int, colours: Colours) -> Iterator[str]:
    """With its last part in bold, or in brackets, which no service's name has, where there is no bold."""
    head, last = service_parts(service)
    text = service if colours.enabled else f"{head}[{last}]"
    for start, piece in _pieces(text, columns):
        plain = max(0, len(head) - start) if colours.enabled else len(piece)
        marked = piece[:plain] + (colours.title(piece[plain:]) if plain < len(piece) else "")
        yield _field("" if start else "service", marked)


def _fields(name: str, untrusted_text: str, columns: int, room: int, colours: Colours) -> Iterator[str]:
    """A text of others in at most ``room`` lines, and one that says how much is missing."""
    text, missing = shown(untrusted_text, min(MOST, room * _width(columns)))
    if not untrusted_text:
        yield _field(name, colours.faint("(empty)"))
    for start, piece in _pieces(text, columns):
        yield _field("" if start else name, piece)
    if missing:
        yield _field(colours.odd("cut short".ljust(_MARGIN - 4)), colours.odd(f"{missing:,} more characters"))


def _pieces(text: str, columns: int) -> Iterator[tuple[int, str]]:
    """A text in as many lines as it needs, each with the place at which it begins."""
    width = _width(columns)
    for start in range(0, len(text), width):
        yield start, text[start : start + width]


def _width(columns: int) -> int:
    return max(_NARROWEST, columns - _MARGIN - 1)


def _joined(text: Shown) -> str:
    return f"{text.text} (cut short)" if text.missing else text.text


def prompt(keys: Keys, seconds: float) -> str:
    """What is to be typed, with the seconds that are left, and what has been typed."""
    if not keys.awake:
        what = "One moment: what is typed now does not count."
    elif keys.confirming:
        what = f"Type yes to allow that; all else denies: {keys.line}"
    else:
        numbers = "1 allows" if keys.choices == 1 else f"1 to {keys.choices} allow"
        default = "" if keys.default is None else f", Enter for {keys.default}"
        what = f"{numbers}{default}, d denies: {keys.line}"
    return f"[{time_left(seconds)}] {what}"
