"""Numbers and truth values in the payload of a call (``spec/admin-calls.md`` 0)."""

from __future__ import annotations

import re

from qubesd.errors import BadValue, ProtocolError
from qubesd.model import forms

_NUMBER = re.compile(rb"0|[1-9][0-9]{0,18}")


def number(untrusted_text: bytes, signed: bool = False) -> int:
    """A decimal number of at most 19 digits, without leading zeros; ``ProtocolError`` for anything else."""
    untrusted_digits = untrusted_text.removeprefix(b"-") if signed else untrusted_text
    if _NUMBER.fullmatch(untrusted_digits) is None:
        raise ProtocolError("expected a whole number of at most 19 digits")
    return int(untrusted_text)


def truth(untrusted_text: bytes) -> bool:
    """One of the words for true and false; ``ProtocolError`` for anything else."""
    try:
        return forms.boolean(untrusted_text)
    except BadValue as error:
        raise ProtocolError(str(error)) from None
