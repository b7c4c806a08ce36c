"""Text of one field or directive of the delegation dialect → value, by the grammar in ``delegation.lark``.

One ``Dialect`` reads one file: what ``!define`` names is known in that file, after its definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

from lark import Lark, Token, UnexpectedInput, UnexpectedToken

from policy_engine.catalogue import ACCESSES, Catalogue
from policy_engine.delegation import Allowance, Arguments, Services
from policy_engine.errors import Kind, quoted
from policy_engine.expression import HOLE, Both, Either, Expression, Is, Not, OfCaller
from policy_engine.model import DOM0_TEXTS, Allow, Ask, Deny
from policy_engine.parse import FieldError, make_action

NAME = "delegation-1"
"""What ``!dialect`` is followed by."""

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Alternatives:
    """What ``value=`` allows one key to be, by text; its type is known when the rule's calls are."""

    key: str
    texts: tuple[tuple[str, int], ...]
    """With the place of each in the action's text, in characters from 0."""
    offset: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The last field of a rule.

    Attributes:
        value: ``None`` where there is no ``value=``.
        remember: in seconds; ``None`` where there is no ``remember=``.
        redirect: where ``target=`` stands in the text; ``None`` where it is missing or names dom0.
        value_text: what is written behind ``value=``.
        value_offset, remember_offset: where in the text they stand.
    """

    action: Allow | Ask | Deny
    value: tuple[Alternatives, ...] | None = None
    remember: int | None = None
    redirect: int | None = None
    value_text: str = ""
    value_offset: int = 0
    remember_offset: int = 0


@cache
def _grammar() -> Lark:
    """Made when the first file of the dialect is read; most programs read none."""
    return Lark.open(
        "delegation.lark",
        rel_to=__file__,
        parser="lalr",
        lexer="contextual",
        start=["services", "arguments", "expression", "outcome", "frame", "define", "limit"],
        maybe_placeholders=False,
    )


_NO_TARGET = frozenset({"@default", "@dispvm"})
"""Tokens that only the target column takes."""

_BUILT_IN = frozenset(
    f"@{word}" for word in ("anyvm", "adminvm", "default", "dispvm", "tag", "type", *ACCESSES)
)
_BUILT_IN |= {"@label", "@template"}

MAX_TEXT = 8 * 1024
"""Characters of one field or directive."""

MAX_ATOMS = 1_000
"""Names and tokens of one expression, those of its defined names counted each time."""

MAX_DEPTH = 20
"""How many defined names may be used within each other."""

_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_MAX_NUMBER = 2**63 - 1
_MANY_DIGITS = 20
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_MAX_REMEMBER = 24 * 3600

_TAKES: dict[Kind, tuple[str, ...]] = {"value": ("allow", "ask"), "remember": ("ask",)}
"""The actions that take a parameter which the stock language does not have."""

_KINDS: dict[str, Kind] = {kind: kind for kind in _TAKES}


@dataclass(slots=True)
class Defined:
    """What a name stands for, with its size, the line that says so and whether the file has used it."""

    expression: Expression
    atoms: int
    depth: int
    line: int
    used: bool = False


class Dialect:
    """The readers of one file. What was read is remembered, for policies repeat themselves.

    Each reader raises ``FieldError``.

    Attributes:
        atoms: names and tokens of all expressions that were read, those read again counted again.
        defined: what the names stand for that were defined so far.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.atoms = 0
        self.defined: dict[str, Defined] = {}
        self._known: dict[tuple[str, str], tuple[Any, int]] = {}

    def services(self, text: str) -> Services:
        """A service field. Refuses: service-chars."""
        return self._once("services", text, self._services)

    def arguments(self, text: str) -> Arguments:
        """An argument field. Refuses: argument-chars, token."""
        return self._once("arguments", text, self._arguments)

    def source(self, text: str) -> Expression:
        """A source field. Refuses: token."""
        return self._once("source", text, lambda text: self._expression(text, "a source", _NO_TARGET))

    def target(self, text: str) -> Expression:
        """A target field. Refuses: token."""
        return self._once("target", text, lambda text: self._expression(text, "a target", frozenset()))

    def qubes(self, text: str) -> Expression:
        """A qube expression of an argument or of a value. Refuses: token."""
        return self._once("qubes", text, lambda text: self._expression(text, "qubes", _NO_TARGET))

    def outcome(self, text: str) -> Outcome:
        """An action and its parameters. Refuses: action-unknown, param-*, token, value, remember."""
        return self._once("outcome", text, _outcome)

    def _once(self, field: str, text: str, read: Callable[[str], V]) -> V:
        known = self._known.get((field, text))
        if known is None:
            before = self.atoms
            value = read(text)
            self._known[field, text] = value, self.atoms - before
            return value
        value, atoms = known
        self.atoms += atoms
        return cast(V, value)

    def define(self, text: str, line: int) -> None:
        """``!define @name (expression)`` in this line. Refuses: define, token."""
        tree = _parse("define", text, "define", "!define @NAME (EXPRESSION)")
        name, expression = tree.children
        if str(name) in _BUILT_IN or str(name) in self.defined:
            raise FieldError("define", f"{quoted(name)} has a meaning already", name.start_pos or 0)
        self.defined[str(name)] = Defined(self._built(expression), *self._size(expression), line)

    def limit(self, text: str) -> tuple[Expression, Allowance]:
        """``!limit SOURCE key=value …``. Refuses: limit, token."""
        tree = _parse("limit", text, "limit", "!limit SOURCE KEY=VALUE")
        source, *pairs = tree.children
        try:
            expression = self.source(str(source))
        except FieldError as error:
            raise FieldError(error.kind, error.message, error.offset + (source.start_pos or 0)) from None
        bounds: dict[str, int] = {}
        for pair in pairs:
            key, _, amount = pair.partition("=")
            if key not in Allowance.__slots__ or key in bounds:
                known = ", ".join(Allowance.__slots__)
                raise FieldError(
                    "limit", f"expected {known}, each once, found {quoted(key)}", pair.start_pos or 0
                )
            bounds[key] = _bound(key, amount, (pair.start_pos or 0) + len(key) + 1)
        return expression, Allowance(**bounds)

    def _services(self, text: str) -> Services:
        expected = "services parted by '|': names, globs such as qubes.* or @read, @write:local and the like"
        tree = _parse("services", text, "service-chars", expected)
        names: set[str] = set()
        globs = []
        for part in tree.children:
            (token,) = part.children
            if part.data == "named_service":
                names.add(str(token))
            elif part.data == "service_glob":
                globs.append(str(token)[:-1])
            else:
                access, _, scope = token[1:].partition(":")
                names.update(self.catalogue.of_set(access, scope or None))
        return Services(frozenset(names), tuple(globs))

    def _arguments(self, text: str) -> Arguments:
        if text[:1] not in ("+", "*"):
            return Arguments(qubes=self.qubes(text))
        expected = "arguments parted by '|' that begin with '+', '*', or one expression for a qube"
        tree = _parse("arguments", text, "argument-chars", expected)
        parts = [(part.data, str(part.children[0]) if part.children else "") for part in tree.children]
        names = frozenset(token for data, token in parts if data == "named_argument")
        globs = tuple(token[:-1] if token else "" for data, token in parts if data != "named_argument")
        return Arguments(names, globs)

    def _expression(self, text: str, what: str, refused: frozenset[str]) -> Expression:
        expression = self._built(_parse("expression", text, "token", f"{what}: qubes with '|', ',' and '!'"))
        for atom in expression.atoms():
            if atom.text in refused:
                offset = max(text.find(atom.text), 0)  # not there if a defined name stands for it
                raise FieldError("token", f"expected {what}, found {quoted(atom.text)}", offset)
        return expression

    def _built(self, tree: Any) -> Expression:
        """What the grammar found, with what ``!define`` has named in the place of the names."""
        expression = self._part(tree)
        atoms, depth = self._size(tree)
        if atoms > MAX_ATOMS or depth > MAX_DEPTH:
            message = f"{MAX_ATOMS} names and tokens, and defined names {MAX_DEPTH} deep"
            raise FieldError("token", f"an expression has at most {message}")
        self.atoms += atoms
        return expression

    def _size(self, tree: Any) -> tuple[int, int]:
        """The names and tokens of an expression, and how deep defined names lie in it."""
        if tree.data == "defined":
            defined = self.defined[str(tree.children[0])]
            return defined.atoms, defined.depth + 1
        if tree.data not in ("either", "both", "negated"):
            return 1, 0
        parts = [self._size(part) for part in tree.children]
        return sum(atoms for atoms, _ in parts), max(depth for _, depth in parts)

    def _part(self, tree: Any) -> Expression:
        match tree.data:
            case "either" | "both":
                parts = tuple(self._part(part) for part in tree.children)
                return parts[0] if len(parts) == 1 else (Either if tree.data == "either" else Both)(parts)
            case "negated":
                return Not(self._part(tree.children[0]))
            case "anything":
                return Is("*")
            case "defined":
                (name,) = tree.children
                found = self.defined.get(str(name))
                if found is None:
                    message = f"expected a token or a name that is defined above, found {quoted(name)}"
                    raise FieldError("token", message, name.start_pos or 0)
                found.used = True
                return found.expression
        (token,) = tree.children
        if token.startswith("@template:") and not self.catalogue.enforced:
            message = "who decides here is not told of templates; leave @template: out"
            raise FieldError("needs-core", message, token.start_pos or 0)
        return _atom(token)


def _atom(token: Token) -> Expression:
    before, hole, after = token.partition(HOLE)
    if "{" in before + after or "}" in before + after:
        message = f"expected a name, a tag or one {HOLE}, found {quoted(token)}"
        raise FieldError("token", message, token.start_pos or 0)
    if hole:
        return OfCaller(before, after)
    return Is("@adminvm" if token in DOM0_TEXTS else str(token))


def read_frame(text: str) -> tuple[str, int] | None:
    """The path of ``!include PATH`` as an action, and where it stands; ``None`` if the text is none."""
    if not text.startswith("!"):
        return None
    (path,) = _parse("frame", text, "action-unknown", "an action or '!include FILE'").children
    return str(path), path.start_pos or 0


def read_amount(text: str, offset: int, kind: Kind = "value") -> tuple[int, bool]:
    """A number with or without a unit, in bytes if it has one, and whether it has. Raises ``FieldError``."""
    digits = text.rstrip("KMGTiB")
    if digits.isascii() and digits.isdigit() and len(digits) < _MANY_DIGITS:
        number = int(digits) * _UNITS.get(text[len(digits) :], 1)
        if number <= _MAX_NUMBER and (text == digits or text[len(digits) :] in _UNITS):
            return number, text != digits
    raise FieldError(
        kind, f"expected a number, perhaps with {', '.join(_UNITS)}, found {quoted(text)}", offset
    )


def _bound(key: str, text: str, offset: int) -> int:
    number, has_unit = read_amount(text, offset, "limit")
    if has_unit is not (key in ("memory", "storage")):
        unit = "a unit such as GiB" if not has_unit else "no unit"
        raise FieldError("limit", f"expected {unit} after {key}=, found {quoted(text)}", offset)
    return number


def _outcome(text: str) -> Outcome:
    word = text.split(None, 1)[0]
    if word not in ("allow", "ask", "deny"):
        raise FieldError("action-unknown", f"expected allow, ask, deny or !include, found {quoted(word)}")
    tree = _parse("outcome", text, "param-syntax", "parameters NAME=VALUE")
    stock: list[Token] = []
    said: dict[str, Any] = {}
    for part in tree.children[1:]:
        parameter = part if isinstance(part, Token) else part.children[0]
        offset = parameter.start_pos or 0
        name, _, given = parameter.partition("=")
        kind = _KINDS.get(name)
        if kind is not None and (name in said or word not in _TAKES[kind]):
            raise FieldError(kind, f"{name}= is for {' or '.join(_TAKES[kind])}, once", offset)
        if name == "value":
            said |= {"value": tuple(_alternatives(part)), "value_offset": offset}
            said["value_text"] = _value_text(text[offset + len("value=") :])
        elif name == "remember":
            said |= {"remember": _duration(given, offset + len("remember=")), "remember_offset": offset}
        else:
            if name == "target" and given not in DOM0_TEXTS:
                said["redirect"] = offset
            stock.append(parameter)
    return Outcome(make_action(word, tuple(stock)), **said)


def _value_text(rest: str) -> str:
    """As it is written, its words parted by single blanks."""
    return " ".join(rest[: rest.index(")") + 1].split()) if rest[0] == "(" else rest.split(None, 1)[0]


def _alternatives(part: Any) -> Iterable[Alternatives]:
    if part.data == "single_value":
        yield _of_key("", part.children[1].children)
        return
    seen = set()
    for pair in part.children[1:]:
        key, alternatives = pair.children
        if key in seen:
            raise FieldError("value", f"key {quoted(key)} is given twice", key.start_pos or 0)
        seen.add(key)
        yield _of_key(str(key), alternatives.children)


def _of_key(key: str, tokens: list[Token]) -> Alternatives:
    return Alternatives(
        key, tuple((str(token), token.start_pos or 0) for token in tokens), tokens[0].start_pos or 0
    )


def _duration(text: str, offset: int) -> int:
    digits, unit = text[:-1], text[-1:]
    if digits.isascii() and digits.isdigit() and len(digits) < 6 and unit in _SECONDS:
        seconds = int(digits) * _SECONDS[unit]
        if 0 < seconds <= _MAX_REMEMBER:
            return seconds
    raise FieldError(
        "remember", f"expected a time such as 90s, 10m or 2h, at most a day, found {quoted(text)}", offset
    )


def _parse(start: str, text: str, kind: Kind, expected: str) -> Any:
    if len(text) > MAX_TEXT:
        raise FieldError(kind, f"expected {expected}, at most {MAX_TEXT} characters", MAX_TEXT)
    try:
        return _grammar().parse(text, start=start)
    except UnexpectedInput as error:
        at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        offset = len(text) if at_end else error.pos_in_stream or 0
        found = quoted(text) if text else "nothing"
        raise FieldError(kind, f"expected {expected}, found {found}", offset) from None
