"""Events that a guest causes by what it says of itself (``spec/events.md`` 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qubesd.events import Keys, Read, WireEvent


@dataclass(frozen=True, slots=True)
class FeaturesRequest(WireEvent):
    """A guest asks for features of its own qube; which it gets is for extensions to say.

    Of what it holds, only number, length and letters were checked: names are those that features may have,
    values letters, digits, blanks and ``-.,_=``.
    """

    kind = "features-request"
    kept = True
    of_change = True
    cause = True

    subject: str
    untrusted_features: Mapping[str, str]

    def keys(self) -> Keys:
        return (("untrusted_features", repr(dict(self.untrusted_features))),)

    def reads(self) -> tuple[Read, ...]:
        return tuple(Read("admin.vm.feature.Get", name, self.subject) for name in self.untrusted_features)


@dataclass(frozen=True, slots=True)
class TemplatePostinstall(WireEvent):
    """The guest announced its agent for the first time: it is installed."""

    kind = "template-postinstall"
    kept = True

    subject: str
