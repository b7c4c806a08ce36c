"""Text of one field, parameter list or directive → value, by the grammar in ``rule.lark``.

``Fields`` remembers what it has read: policies repeat themselves, and the grammar sees each text once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar, cast

from lark import Lark, Token, Transformer, UnexpectedInput, UnexpectedToken, v_args

from policy_engine.errors import Kind, quoted
from policy_engine.model import (
    ANY,
    Action,
    AdminQube,
    Allow,
    AnyQube,
    Anything,
    Ask,
    Deny,
    Disposable,
    DisposableOf,
    DisposableTagged,
    Named,
    NoTarget,
    Redirect,
    Selector,
    Tagged,
    Typed,
)

V = TypeVar("V")


class FieldError(Exception):
    """A text that the grammar or a rule beyond it refuses; whoever knows the file and line adds them.

    Attributes:
        offset: where in the text, in characters from 0.
    """

    def __init__(self, kind: Kind, message: str, offset: int = 0) -> None:
        super().__init__(kind, message, offset)
        self.kind: Kind = kind
        self.message = message
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Include:
    """``!include PATH``."""

    path: str


@dataclass(frozen=True, slots=True)
class IncludeDirectory:
    """``!include-dir PATH``."""

    path: str


@dataclass(frozen=True, slots=True)
class IncludeService:
    """``!include-service SERVICE ARGUMENT PATH``."""

    service: str
    argument: str
    path: str


@dataclass(frozen=True, slots=True)
class Compat:
    """``!compat-4.0``."""


Directive = Include | IncludeDirectory | IncludeService | Compat


@v_args(inline=True)
class _Values(Transformer[Token, object]):
    """Builds values, and judges nothing that the grammar can say."""

    def text(self, token: Token) -> str:
        return str(token)

    def argument_without_plus(self, token: Token) -> NoReturn:
        raise FieldError("argument-plus", f"expected an argument that begins with '+', found {quoted(token)}")

    def anything(self, _: Token) -> Anything:
        return Anything()

    def any_qube(self, _: Token) -> AnyQube:
        return AnyQube()

    def tagged(self, tag: Token) -> Tagged:
        return Tagged(str(tag))

    def typed(self, klass: Token) -> Typed:
        return Typed(str(klass))

    def named(self, name: Token) -> Named:
        return Named(str(name))

    def admin_qube(self, _: Token) -> AdminQube:
        return AdminQube()

    def no_target(self, _: Token) -> NoTarget:
        return NoTarget()

    def disposable(self, _: Token) -> Disposable:
        return Disposable()

    def disposable_of(self, base: Token) -> DisposableOf:
        return DisposableOf(str(base))

    def disposable_tagged(self, tag: Token) -> DisposableTagged:
        return DisposableTagged(str(tag))

    def flag(self, token: Token) -> bool:
        return token.type == "YES"

    def outcome(self, action: Token, *parameters: Token) -> Action:
        return make_action(str(action), parameters)

    def include(self, path: Token) -> Include:
        return Include(str(path))

    def include_directory(self, path: Token) -> IncludeDirectory:
        return IncludeDirectory(str(path))

    def include_service(self, service: str, argument: str, path: Token) -> IncludeService:
        return IncludeService(service, argument, str(path))

    def compat(self) -> Compat:
        return Compat()


_GRAMMAR = Lark.open(
    "rule.lark",
    rel_to=__file__,
    parser="lalr",
    lexer="contextual",
    start=[
        "service",
        "argument",
        "source",
        "target",
        "redirect",
        "flag",
        "outcome",
        "directive",
        "legacy_directive",
    ],
    transformer=_Values(),
    maybe_placeholders=False,
)


def _parse(start: str, text: str) -> object:
    return _GRAMMAR.parse(text, start=start)


def _offset(error: UnexpectedInput, text: str) -> int:
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return len(text)
    return error.pos_in_stream or 0


def read_service(text: str) -> str:
    """A service field. Raises ``FieldError``: service-chars."""
    try:
        return cast(str, _parse("service", text))
    except UnexpectedInput as error:
        raise FieldError(
            "service-chars",
            f"expected '*' or a service of letters, digits, '-', '.' and '_', found {quoted(text)}",
            _offset(error, text),
        ) from None


def read_argument(text: str) -> str:
    """An argument field. Raises ``FieldError``: argument-chars, argument-plus."""
    try:
        return cast(str, _parse("argument", text))
    except UnexpectedInput as error:
        raise FieldError(
            "argument-chars",
            "expected '*' or '+' and an argument of letters, digits, '+', '-', '.' and '_', "
            f"found {quoted(text)}",
            _offset(error, text),
        ) from None


def read_source(text: str) -> Selector:
    """A source field. Raises ``FieldError``: token."""
    return cast(Selector, _token("source", "a source", text))


def read_target(text: str) -> Selector:
    """A target field. Raises ``FieldError``: token."""
    return cast(Selector, _token("target", "a target", text))


def read_redirect(text: str) -> Redirect:
    """The value of ``target=`` or ``default_target=``. Raises ``FieldError``: token."""
    return cast(Redirect, _token("redirect", "a qube, '@adminvm', '@dispvm' or '@dispvm:NAME'", text))


def _token(start: str, expected: str, text: str) -> object:
    try:
        return _parse(start, text)
    except UnexpectedInput as error:
        found = quoted(text) if text else "nothing"
        raise FieldError("token", f"expected {expected}, found {found}", _offset(error, text)) from None


def read_outcome(text: str) -> Action:
    """An action and its parameters. Raises ``FieldError``: action-unknown, param-*, token."""
    try:
        return cast(Action, _parse("outcome", text))
    except UnexpectedInput:
        found = quoted(text.partition(" ")[0])
        raise FieldError("action-unknown", f"expected allow, ask or deny, found {found}") from None


_FLAGS = ("notify", "autostart")
_REDIRECTS = ("target", "default_target")
_PARAMETERS = {
    "allow": frozenset({"target", "user", "autostart", "notify"}),
    "ask": frozenset({"target", "default_target", "user", "autostart", "notify"}),
    "deny": frozenset({"notify"}),
}


def make_action(action: str, parameters: tuple[Token, ...]) -> Action:
    """The checks of section 3.3 of the policy language, in its order. Raises ``FieldError``."""
    given: dict[str, tuple[str, int]] = {}
    for parameter in parameters:
        offset = parameter.start_pos or 0
        if parameter.type == "BARE_WORD":
            raise FieldError("param-syntax", f"expected NAME=VALUE, found {quoted(parameter)}", offset)
        key, _, value = parameter.partition("=")
        if key in given:
            raise FieldError("param-duplicate", f"parameter {quoted(key)} is given twice", offset)
        given[key] = (value, offset)

    flags: dict[str, bool] = {}
    for key in _FLAGS:
        if key in given:
            value, offset = given[key]
            flags[key] = _flag(key, value, offset)
    for key, (_, offset) in given.items():
        if key not in _PARAMETERS[action]:
            takes = ", ".join(sorted(_PARAMETERS[action]))
            raise FieldError("param-unknown", f"{action} takes only {takes}, found {quoted(key)}", offset)
    redirects: dict[str, Redirect] = {}
    for key in _REDIRECTS:
        if key in given:
            value, offset = given[key]
            redirects[key] = _redirect(key, value, offset)

    user = given["user"][0] if "user" in given else None
    autostart = flags.get("autostart", True)
    if action == "deny":
        return Deny(flags.get("notify", True))
    if action == "allow":
        return Allow(redirects.get("target"), user, autostart, flags.get("notify", False))
    return Ask(
        redirects.get("target"),
        redirects.get("default_target"),
        user,
        autostart,
        flags.get("notify", False),
    )


def _flag(key: str, value: str, offset: int) -> bool:
    try:
        return cast(bool, _parse("flag", value))
    except UnexpectedInput:
        raise FieldError(
            "param-bool", f"expected {key}=yes or {key}=no, found {quoted(value)}", offset + len(key) + 1
        ) from None


def _redirect(key: str, value: str, offset: int) -> Redirect:
    try:
        return read_redirect(value)
    except FieldError as error:
        raise FieldError(error.kind, error.message, offset + len(key) + 1 + error.offset) from None


_DIRECTIVE_WORDS = {"!include": 1, "!include-dir": 1, "!include-service": 3, "!compat-4.0": 0}
_LEGACY_DIRECTIVE_WORDS = {"!include": 1}


def read_directive(text: str, *, legacy: bool) -> Directive:
    """A directive whose words are parted by single spaces; ``legacy`` is the old syntax.

    Raises:
        FieldError: directive-unknown, directive-params, and for ``!include-service`` those of its fields.
    """
    try:
        directive = cast(Directive, _parse("legacy_directive" if legacy else "directive", text))
    except (UnexpectedInput, FieldError):
        raise _directive_error(text, _LEGACY_DIRECTIVE_WORDS if legacy else _DIRECTIVE_WORDS) from None
    if isinstance(directive, IncludeService) and directive.service == ANY:
        require_wildcard(directive.argument, len("!include-service * "))
    return directive


def _directive_error(text: str, known: dict[str, int]) -> FieldError:
    name, *words = text.split(" ")
    if name not in known:
        return FieldError("directive-unknown", f"expected {', '.join(known)}, found {quoted(name)}")
    if len(words) != known[name]:
        found = f"expected {known[name]} words after {name}, found {len(words)}"
        return FieldError("directive-params", found)
    offset = len(name) + 1
    for read, word in zip((read_service, read_argument), words, strict=False):
        try:
            read(word)
        except FieldError as error:
            return FieldError(error.kind, error.message, offset + error.offset)
        offset += len(word) + 1
    raise AssertionError(f"the grammar refuses {text!r}, and each of its words is good")


def require_wildcard(argument: str, offset: int = 0) -> None:
    """For service ``*``: every service has every argument. Raises ``FieldError``: wildcard-argument."""
    if argument != ANY:
        raise FieldError(
            "wildcard-argument", f"service '*' takes only argument '*', found {quoted(argument)}", offset
        )


def require_redirect(action: Action) -> None:
    """For target ``@default``: an allow must say where to. Raises ``FieldError``: default-needs-target."""
    if isinstance(action, Allow) and action.target is None:
        raise FieldError("default-needs-target", "expected target=, since '@default' names no qube to allow")


class _Memo(dict[str, V], Generic[V]):
    """What has been read, by text. Texts that are refused are not kept."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[str], V]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, text: str) -> V:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        value = self[text] = self._read(text)
        return value


MAX_REMEMBERED = 50_000
"""Distinct texts kept for each field; a policy that has more is read correctly, only slower."""


class Fields:
    """The readers of this module with a memory. One for each loader; not shared between threads."""

    __slots__ = ("arguments", "outcomes", "services", "sources", "targets")

    def __init__(self) -> None:
        self.services = _Memo(read_service)
        self.arguments = _Memo(read_argument)
        self.sources = _Memo(read_source)
        self.targets = _Memo(read_target)
        self.outcomes = _Memo(read_outcome)
