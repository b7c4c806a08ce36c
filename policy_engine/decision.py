"""The question put to a policy, and its three possible answers: values, all of them, denials too."""

from typing import Literal, NamedTuple

from policy_engine.delegation import AnyRule

DenialKind = Literal[
    "rule",
    "no-rule",
    "frame",
    "value",
    "subject",
    "authority",
    "reserved",
    "name",
    "bad-target",
    "not-dispvm-template",
    "no-dispvm-base",
    "no-target",
    "needs-autostart",
    "nothing-to-ask",
    "loopback",
    "relay-not-set",
    "transport-not-set",
    "requested-source-unknown",
    "requested-source-not-remote",
    "requested-source-not-relay",
    "user",
    "not-a-choice",
    "bad-agent-answer",
    "changed",
]


class Request(NamedTuple):
    """One call as its caller put it.

    Attributes:
        argument: begins with ``+``; ``+`` alone is the empty argument.
        source: the calling qube, as its transport names it.
        target: what the caller asked for; empty counts as ``@default``.
        requested_source: a RemoteVM in whose name a relay calls; ``None`` or empty for the source itself.
    """

    service: str
    argument: str
    source: str
    target: str
    requested_source: str | None = None

    @classmethod
    def of(
        cls, service_and_argument: str, source: str, target: str, requested_source: str | None = None
    ) -> "Request":
        """The request for ``SERVICE+ARGUMENT``, split at the first ``+``, which may be missing."""
        service, _, argument = service_and_argument.partition("+")
        # As cls(...) does it, without the call in between: every judged call comes by here.
        return tuple.__new__(cls, (service, "+" + argument, source, target, requested_source))


class Allowed(NamedTuple):
    """The call may be made.

    Attributes:
        target: where it goes: ``dom0``, a name, ``uuid:...``, or ``@dispvm:`` and one of these.
        requested_target: the caller's target after checking; ``@default`` if there is no such qube.
        source: in whose name: the requested source, if there was one.
        user: ``None`` for the target's default.
        autostart: whether the target may be started for it.
        notify: whether to tell the source's GUI qube.
        rule: the rule that decided.
    """

    target: str
    requested_target: str
    source: str
    user: str | None
    autostart: bool
    notify: bool
    rule: AnyRule


class Asked(NamedTuple):
    """The user of the source's GUI qube has to choose; ``settle`` takes the answer.

    Attributes:
        targets: the choices, sorted by code point; at least one.
        default_target: the one to preselect, if any.
        served_by: where the call goes whichever is chosen, since the choices say what it is about; ``None``
            where it goes to the choice.

    The others are those of ``Allowed``, once there is a choice.
    """

    targets: tuple[str, ...]
    default_target: str | None
    requested_target: str
    source: str
    user: str | None
    autostart: bool
    notify: bool
    rule: AnyRule
    served_by: str | None = None


class Denied(NamedTuple):
    """The call may not be made.

    Attributes:
        kind: why.
        notify: whether to tell the calling qube's GUI qube.
        rule: the rule that led here; ``None`` if there was none.
    """

    kind: DenialKind
    notify: bool
    rule: AnyRule | None = None


Decision = Allowed | Asked | Denied
