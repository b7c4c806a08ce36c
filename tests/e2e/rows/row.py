"""A method of the Admin API in a table: how it is called with success, and how it is refused.

A call is written ``SERVICE+ARGUMENT TARGET PAYLOAD``. In it, ``{q}`` is a qube that only this row has,
``{root}`` the daemon's directory, and ``{last}`` what the last of the calls made before answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Words(NamedTuple):
    """A call as it is written in a table."""

    service: str
    argument: str
    target: str
    payload: bytes


def words(call: str, **names: str) -> Words:
    """The call with the names filled in; what is not given stays as it is written."""
    for name, value in names.items():
        call = call.replace(f"{{{name}}}", value)
    method, target, *payload = call.split(" ", 2)
    service, _, argument = method.partition("+")
    return Words(service, argument, target, "".join(payload).encode("utf-8"))


@dataclass(frozen=True, slots=True)
class Row:
    """One method.

    Args:
        call: is done, and answered with what ``answer``, an expression for the whole of it, says.
        wrong: is refused with the error of class ``error``.
        klass: the class of the row's own qube.
        before: calls that are made first, by the same caller.
        after: calls that give back what others need.
        stream: the answer goes on: what begins so is enough.
        refused: the error that also ``call`` gets, on a host that has not what it needs; empty for none.
    """

    call: str
    answer: str
    wrong: str
    error: str
    klass: str = "StandaloneVM"
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    stream: bool = False
    refused: str = ""

    @property
    def service(self) -> str:
        return words(self.call).service
