"""The one call that ``qrexec-policy-daemon`` answers: what it decides by, asked by dom0's tools.

``qubesd`` has an internal socket for such calls; a daemon without a core has this one, which speaks the same
way and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.deciding.status import STATUS
from broker.wire import FramingError, encode_content, parse_call
from qubesd.api.call import Call
from qubesd.model.state import DOM0

_QUESTION = Call(STATUS, "", DOM0, DOM0, b"")


class StatusSpeaker:
    """Answers with what ``tell`` says."""

    def __init__(self, tell: Callable[[], str]) -> None:
        self._tell = tell

    def is_whole(self, untrusted_request: bytes) -> bool:
        """A call goes on until its end."""
        return False

    def answer(self, untrusted_request: bytes) -> bytes:
        try:
            call = parse_call(untrusted_request)
        except FramingError as error:
            raise ValueError(str(error)) from error
        if call != _QUESTION:
            raise ValueError(f"not a call of {STATUS}")
        return encode_content(self._tell())
