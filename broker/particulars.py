"""What policies may look at of a call besides its four fields, made of the value that its handler gets."""

from __future__ import annotations

from policy_engine import Particulars
from qubesd.api.method import Command, Method
from qubesd.api.values import Values
from qubesd.core.core import Core


def particulars(core: Core, method: Method, command: Command) -> Particulars:
    """The payload in canonical form, and the qubes that the command touches besides its destination.

    Raises:
        QubesError: what it touches cannot be told.
    """
    values = method.values.canonical(command.value) if isinstance(method.values, Values) else {}
    subjects = () if method.touches is None else method.touches(core, command)
    return Particulars(values, subjects, str(values["name"]) if method.creates else None)
