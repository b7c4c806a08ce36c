"""How a text from elsewhere is shown, and the one line of the log for what becomes of a question, in the form
of the stock policy daemon (``spec/policy-daemon.md`` 1.3)."""

from __future__ import annotations

import logging

from policy_engine import Request
from policy_engine.errors import quoted

_log = logging.getLogger("qrexec")

_LONGEST_SHOWN = 200


def say(request: Request, what: str) -> None:
    """Log what became of this request."""
    if _log.isEnabledFor(logging.INFO):
        service = shown(f"{request.service}{request.argument}")
        _log.info("qrexec: %s: %s -> %s: %s", service, shown(request.source), shown(request.target), what)


def shown(untrusted_text: str) -> str:
    """The text, quoted and cut where it could be taken for something else."""
    plain = (
        untrusted_text.isascii() and untrusted_text.isprintable() and len(untrusted_text) <= _LONGEST_SHOWN
    )
    return untrusted_text if plain else quoted(untrusted_text)


def plain(untrusted_text: str) -> str:
    """The text on one line of printable ASCII, all else escaped as Python does."""
    if untrusted_text.isascii() and untrusted_text.isprintable():
        return untrusted_text
    return "".join(one if " " <= one <= "~" else ascii(one)[1:-1] for one in untrusted_text)
