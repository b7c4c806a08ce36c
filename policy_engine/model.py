"""Rules as values: selectors, actions, and where each rule was written.

Nothing here points back at a parser or a policy. ``read.py`` makes these values, ``format.py`` writes them,
and the keys of ``world.py`` say what a selector matches.
"""

from dataclasses import dataclass
from typing import ClassVar

ANY = "*"
"""The wildcard of the service, argument, source and target fields."""

DOM0 = "dom0"
DOM0_UUID = "uuid:00000000-0000-0000-0000-000000000000"
DOM0_TEXTS = frozenset({DOM0, "@adminvm", DOM0_UUID})
"""The three spellings of dom0 (policy language, section 4)."""


@dataclass(frozen=True, slots=True)
class Anything:
    """``*``: whatever is called, dom0 included."""

    token: ClassVar[str] = ANY


@dataclass(frozen=True, slots=True)
class AnyQube:
    """``@anyvm``: whatever is not dom0; as a target also ``@default`` and the disposables."""

    token: ClassVar[str] = "@anyvm"


@dataclass(frozen=True, slots=True)
class AdminQube:
    """``@adminvm``: dom0."""

    token: ClassVar[str] = "@adminvm"


@dataclass(frozen=True, slots=True)
class NoTarget:
    """``@default``: the caller named no qube, or one that does not exist."""

    token: ClassVar[str] = "@default"


@dataclass(frozen=True, slots=True)
class Disposable:
    """``@dispvm``: a new disposable of the caller's own default."""

    token: ClassVar[str] = "@dispvm"


@dataclass(frozen=True, slots=True)
class DisposableOf:
    """``@dispvm:NAME``: a new disposable of the named template (a name or ``uuid:...``)."""

    base: str

    @property
    def token(self) -> str:
        return f"@dispvm:{self.base}"


@dataclass(frozen=True, slots=True)
class DisposableTagged:
    """``@dispvm:@tag:TAG``: a new disposable of any template that carries the tag now."""

    tag: str

    @property
    def token(self) -> str:
        return f"@dispvm:@tag:{self.tag}"


@dataclass(frozen=True, slots=True)
class Tagged:
    """``@tag:TAG``: qubes that carry the tag now, not when the rule was read."""

    tag: str

    @property
    def token(self) -> str:
        return f"@tag:{self.tag}"


@dataclass(frozen=True, slots=True)
class Typed:
    """``@type:TYPE``: qubes of the class."""

    klass: str

    @property
    def token(self) -> str:
        return f"@type:{self.klass}"


@dataclass(frozen=True, slots=True)
class Named:
    """A name or ``uuid:...`` as written. Any word is a name; one that no qube has never matches."""

    name: str

    @property
    def token(self) -> str:
        return self.name


# A selector's `token` is its text as policies write it.
Selector = (
    Anything
    | AnyQube
    | AdminQube
    | NoTarget
    | Disposable
    | DisposableOf
    | DisposableTagged
    | Tagged
    | Typed
    | Named
)

Redirect = AdminQube | Disposable | DisposableOf | Named
"""What ``target=`` and ``default_target=`` can name."""


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse; ``notify`` asks for a notification."""

    notify: bool = True


@dataclass(frozen=True, slots=True)
class Allow:
    """Carry the call out without asking.

    Attributes:
        target: where the call goes instead; ``None`` keeps the caller's target.
        user: the user to run as in the target; ``None`` is the target's default, ``""`` is kept as written.
        autostart: whether a halted target may be started for the call.
        notify: whether to tell the GUI qube.
    """

    target: Redirect | None = None
    user: str | None = None
    autostart: bool = True
    notify: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Let the user of the GUI qube choose; attributes as in ``Allow``.

    Attributes:
        default_target: the choice to preselect; ``None`` preselects nothing.
    """

    target: Redirect | None = None
    default_target: Redirect | None = None
    user: str | None = None
    autostart: bool = True
    notify: bool = False


Action = Allow | Ask | Deny


@dataclass(frozen=True, slots=True)
class Inclusion:
    """The directive that had a file read, and the one that had *its* file read.

    Attributes:
        within: ``None`` if ``file`` is itself a file of a policy directory.
    """

    file: str
    line: int
    within: "Inclusion | None" = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as it is in force.

    Attributes:
        service: the service's name, or ``*``.
        argument: ``*``, or the exact argument with its leading ``+``.
        file: the path the rule was read from, links and ``..`` resolved where a directive named it.
        line: counted from 1; ``None`` for the denials that the legacy directory implies.
        included_from: the directive that brought the file in; ``None`` for a file of a policy directory.
    """

    service: str
    argument: str
    source: Selector
    target: Selector
    action: Action
    file: str = ""
    line: int | None = None
    included_from: Inclusion | None = None
