"""What a rule of the delegation dialect may say of the calls that it covers, by the catalogue.

Here the alternatives of ``value=`` get their types, and a rule that could not be carried out is refused
before it is in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from policy_engine.catalogue import SINGLE, Catalogue, Entry, Kind
from policy_engine.delegation import Arguments, Reach, Services
from policy_engine.dialect import Alternatives, Dialect, Outcome, read_amount
from policy_engine.errors import quoted
from policy_engine.expression import HOLE, NOTHING, Expression
from policy_engine.model import Deny
from policy_engine.parse import FieldError
from policy_engine.values import Matcher, Numbers, Qubes, TextPattern, Texts, Values

_NONE = "none"
_MEBIBYTE = 2**20


def checked_value(reach: Reach, outcome: Outcome, dialect: Dialect) -> Values | None:
    """The ``value=`` of a rule with its types; ``None`` where it has none.

    Raises:
        FieldError: value, redirect, remember, needs-core; token for a qube expression in it. The offset
            counts in the text of the outcome.
    """
    covered = dict(_covered(reach.services, dialect.catalogue))
    if covered and outcome.redirect is not None:
        message = "calls of the Admin API are carried out by dom0; leave target= out"
        raise FieldError("redirect", message, outcome.redirect)
    if not dialect.catalogue.enforced and not isinstance(outcome.action, Deny):
        _require_no_core(covered, outcome)
    if outcome.remember is not None:
        _require_no_payload(reach.services, covered, outcome, dialect.catalogue)
    if outcome.value is None:
        return None
    place = outcome.value_offset
    if not covered or _covers_others(reach.services, dialect.catalogue):
        raise FieldError("value", "value= is for calls of the Admin API that are named or in a set", place)
    forms = list(_forms(covered, reach.arguments, place))
    keys = tuple((one.key, _matcher(one, forms, dialect)) for one in outcome.value)
    return Values(outcome.value_text, keys)


def _covered(services: Services, catalogue: Catalogue) -> Iterator[tuple[str, Entry]]:
    """The calls of the Admin API that the field covers, in the order of which an error names the first."""
    if not services.globs:
        names = sorted(services.names & catalogue.entries.keys())
        yield from ((name, catalogue.entries[name]) for name in names)
        return
    yield from ((name, entry) for name, entry in catalogue.entries.items() if services.covers(name))


def _covers_others(services: Services, catalogue: Catalogue) -> bool:
    """Whether it also covers services that are no calls of the Admin API. A glob does, whatever it begins
    with: nobody keeps a service from being called ``admin.Mine``."""
    return bool(services.globs) or any(name not in catalogue.entries for name in services.names)


def _require_no_core(covered: Mapping[str, Entry], outcome: Outcome) -> None:
    if outcome.value is not None:
        raise FieldError(
            "needs-core", "value= needs a daemon that carries the calls out", outcome.value_offset
        )
    name = next((name for name, entry in covered.items() if entry.needs_core), None)
    if name is not None:
        raise FieldError(
            "needs-core", f"{name} can be granted in the dialect only by a daemon that carries it out"
        )


def _require_no_payload(
    services: Services, covered: Mapping[str, Entry], outcome: Outcome, catalogue: Catalogue
) -> None:
    unknown = _covers_others(services, catalogue)
    if unknown or any(entry.takes_payload for entry in covered.values()):
        message = "remember= is for calls of the Admin API that have no payload"
        raise FieldError("remember", message, outcome.remember_offset)


def _forms(
    covered: Mapping[str, Entry], arguments: Arguments, place: int
) -> Iterator[tuple[str, Mapping[str, Kind]]]:
    """What the payload of each call may give, with the call as people write it."""
    for name, entry in covered.items():
        for argument in sorted(arguments.names) or ("+",):
            form = entry.form(argument[1:])
            if form is None:
                call = name if argument == "+" else name + argument
                raise FieldError("value", f"value= cannot speak of the payload of {call}", place)
            yield name + argument, form
    if arguments.globs and arguments.names:
        yield from _forms(covered, Arguments(globs=("",)), place)


def _matcher(one: Alternatives, forms: Iterable[tuple[str, Mapping[str, Kind]]], dialect: Dialect) -> Matcher:
    kind: Kind | None = None
    for call, form in forms:
        found = form.get(one.key)
        if found is None:
            keys = ", ".join(sorted(form)) if SINGLE not in form else "one value without a key"
            raise FieldError(
                "value", f"the payload of {call} has {keys}, found {quoted(one.key)}", one.offset
            )
        if kind not in (None, found):
            raise FieldError("value", "the calls of this rule take values of different types", one.offset)
        kind = found
    none = any(text == _NONE for text, _ in one.texts)
    given = [(text, offset) for text, offset in one.texts if text != _NONE]
    match kind:
        case Kind.QUBE:
            return Qubes(_qubes(given, dialect), none)
        case Kind.NUMBER | Kind.MEBIBYTES:
            return Numbers(tuple(_range(text, offset, kind) for text, offset in given), none)
    return Texts(tuple(_pattern(text, offset) for text, offset in given), none)


def _qubes(given: list[tuple[str, int]], dialect: Dialect) -> Expression:
    if not given:
        return NOTHING
    try:
        return dialect.qubes("|".join(text for text, _ in given))
    except FieldError as error:
        raise FieldError(error.kind, error.message, given[0][1] + error.offset) from None


def _range(text: str, offset: int, kind: Kind) -> tuple[int, int]:
    low, dots, high = text.partition("..")
    ends = []
    for end in (low, high) if dots else (low,):
        number, has_unit = read_amount(end, offset)
        if has_unit and kind is Kind.MEBIBYTES:
            if number % _MEBIBYTE:
                raise FieldError("value", f"expected whole MiB, found {quoted(end)}", offset)
            number //= _MEBIBYTE
        ends.append(number)
    if ends[0] > ends[-1]:
        raise FieldError(
            "value", f"expected a range that begins with its lower end, found {quoted(text)}", offset
        )
    return ends[0], ends[-1]


def _pattern(text: str, offset: int) -> TextPattern:
    is_open = text.endswith("*")
    text = text.removesuffix("*")
    if text.count(HOLE) > 1 or any(sign in text.replace(HOLE, "", 1) for sign in "*{}"):
        message = f"expected a text with one {HOLE}, if any, and '*' at its end only, found {quoted(text)}"
        raise FieldError("value", message, offset)
    if is_open and text.endswith(HOLE):
        # a* would cover what is called after ab.
        raise FieldError(
            "value", f"expected a character between {HOLE} and '*' that names cannot share", offset
        )
    return TextPattern(text, is_open)
