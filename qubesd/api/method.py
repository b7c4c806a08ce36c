"""The words of the Admin API's table: what a method declares, what its handler gets, and what it answers.

A method stands on one line of a table with its wire name, its handler and its contract; whoever dispatches
enforces the contract, asks the policy and filters the rows, so that no handler can forget. A handler is a
short function ``handler(core, command)``; it is a plain function where it never waits, a coroutine function
where it does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from qubesd.api.call import Call
from qubesd.api.values import Names, Unspoken, Values
from qubesd.core.tags import Inherits, every_tag
from qubesd.model.state import Qube

if TYPE_CHECKING:
    from qubesd.core.core import Core


def everybody(name: str) -> bool:
    """Of a caller who may be told of every qube."""
    return True


@dataclass(frozen=True, slots=True)
class Command:
    """A call that keeps its method's contract: names looked up, argument and payload parsed into ``value``.

    What was judged is what is carried out: the handler gets this very value, nothing is parsed twice.
    ``inherits`` says which of its template's tags a disposable gets that the call makes, ``sees`` of which
    qubes besides the destination the caller may be told what they hold (``HeldAlong``, ``Counted``).
    """

    service: str
    argument: str
    caller: Qube
    target: Qube
    value: Any = None
    inherits: Inherits = every_tag
    sees: Callable[[str], bool] = everybody


class Scope(Enum):
    """Whether a call is about one qube or about the system; part of the names of the shipped policy's
    includes."""

    LOCAL = "local"
    GLOBAL = "global"


class Access(Enum):
    """What a call can do; every method is in exactly one class."""

    READ = "read"
    WRITE = "write"
    EXECUTE = "execute"


class Need(Enum):
    """Whether an argument or a payload may, must or must not be there."""

    FORBIDDEN = "forbidden"
    REQUIRED = "required"
    OPTIONAL = "optional"


class Destination(Enum):
    """Which qubes a method may be called on."""

    DOM0 = "dom0"
    QUBE = "qube"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class QubeRows:
    """Each row is a qube, its key the name: shown where the caller is allowed ``read`` on that qube."""

    read: str
    always: bool = True
    """Whether stock itself filters so; other guards apply to strict visibility and to the dialect only."""


@dataclass(frozen=True, slots=True)
class NameRows:
    """Each row is a name: shown where the caller is allowed ``read`` with that name as argument on the same
    target."""

    read: str
    always: bool = False


@dataclass(frozen=True, slots=True)
class VolumeRows:
    """Each row is a volume of the pool that the argument names, its key ``QUBE+VOLUME``: shown where the
    caller is allowed ``read`` with that pool on the same target and ``by_qube`` with that volume on the qube.

    What no qube has (a kernel, an image left over) has dom0 as its qube and its vid as its volume.
    """

    read: str
    by_qube: str
    always: bool = False


@dataclass(frozen=True, slots=True)
class DeviceRows:
    """Each row is a device, its key ``BACKEND+PORT:DEVICE``: shown where the caller is allowed ``read`` with
    that port, ``_`` for any, on the backend."""

    read: str
    always: bool = False


@dataclass(frozen=True, slots=True)
class EventRows:
    """An event stream: each event is shown where the caller is allowed ``read`` ``+EVENT`` on its subject,
    and the reads of the values in it."""

    read: str
    always: bool = True


@dataclass(frozen=True, slots=True)
class HeldAlong:
    """The answer is what the first qube along a chain holds. The destination counts, and those others of
    which the caller is allowed ``read`` with the same argument."""

    read: str
    always: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """The answer is made of qubes, with sums of them: of those of which the caller is allowed ``read``
    (``Command.sees``). The others count nowhere."""

    read: str
    always: bool = True


@dataclass(frozen=True, slots=True)
class Unguarded:
    """The answer has no rows to take out, and why."""

    reason: str


Guard = QubeRows | NameRows | VolumeRows | DeviceRows | EventRows | HeldAlong | Counted | Unguarded


@dataclass(frozen=True, slots=True)
class Text:
    """An answer of one piece; a caller that was allowed the call may read it whole."""

    content: str


@dataclass(frozen=True, slots=True)
class Mention:
    """A qube that a row tells of besides what its guard judges, and the row's text without it: for a caller
    from whom that qube is hidden."""

    qube: str
    without: str


@dataclass(frozen=True, slots=True)
class Rows:
    """An answer of rows: the key that the method's guard judges, and the row's text with its line end.

    ``mentions`` has, by key, the rows that tell of a further qube.
    """

    rows: Mapping[str, str]
    mentions: Mapping[str, Mention] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventStream:
    """An answer that goes on: the events of one qube, or of everything where ``subject`` is ``None``.

    ``statistics`` says which: the rounds of ``core.statistics`` and nothing else, or all but them.
    """

    subject: str | None
    statistics: bool = False


Reply = Text | Rows | EventStream
DONE = Text("")

Handler = Callable[["Core", Command], Reply | Awaitable[Reply]]
Parser = Callable[["Core", Qube, str, bytes], Any]
"""(core, target, argument, untrusted payload) -> the typed value; raises ``ProtocolError`` or ``BadValue``.

It looks at form only. Whether something named in it exists is told after the permission was judged, by the
handler. What a payload means by the system as it is (a default, the index of a label) is settled here, so
that the handler cannot come to another meaning than was judged.
"""
Touches = Callable[["Core", Command], tuple[str, ...]]


def alters_nothing(argument: str) -> None:
    """Of a call that changes nothing that policies build on."""


def never(argument: str) -> bool:
    """Of a call that a policy may grant whatever its argument is."""
    return False


@dataclass(frozen=True, slots=True)
class Method:
    """One line of the table. ``guard`` has no default on purpose, and ``values`` has one for a call without a
    payload only: what declares neither what is to be known nor why not cannot be written down.

    Attributes:
        guard: what of the answer is judged row by row.
        names: what the argument names.
        values: what a policy can say of the payload.
        touches: the qubes that a command affects or reads besides its destination; to be asked in the turn of
            the loop in which the handler is called.
        alters: what a call with this argument changes that rules build on: a selector (``@tag:work``), or
            ``@label`` or ``@template`` for those of the destination, ``@served-by`` for the qubes that show,
            play or relay for another; ``None`` for nothing.
        creates: whether it makes a qube, which the key ``name`` of the payload names.
        reserved: whether a call with this argument is for dom0 alone where delegated rules decide.
        judged_as: of what dom0 asks for another qube through a door that judges nobody: the service, in the
            place of its own, that the policy must allow that qube.
    """

    name: str
    handler: Handler
    scope: Scope
    access: Access
    guard: Guard
    destination: Destination = Destination.ANY
    argument: Need = Need.FORBIDDEN
    payload: Need = Need.FORBIDDEN
    parse: Parser | None = None
    names: Names = Names.NOTHING
    values: Values | Unspoken | None = None
    touches: Touches | None = None
    alters: Callable[[str], str | None] = alters_nothing
    reserved: Callable[[str], bool] = never
    creates: bool = False
    judged_as: Callable[[Call], str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.guard, Guard):
            raise TypeError(f"method {self.name!r} declares neither a guard nor a reason for none")
        if (self.values is None) is not (self.payload is Need.FORBIDDEN):
            raise TypeError(f"method {self.name!r} says nothing of its payload, or of one that it has not")
