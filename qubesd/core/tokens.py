"""Tokens that let a volume's content be copied elsewhere (``spec/admin-calls.md`` 6.3).

Stock's are good for ever and for everybody who learns one. Here a token is good for one use by the caller
that got it, also where that use fails, and for a limited time.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass

from qubesd.errors import NoSuchToken

LIFE = 600.0
"""Seconds that a token is good."""
MOST = 100
"""Tokens of one caller at a time; the oldest one goes for a new one."""

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Copied:
    """A volume to be copied: the uuid and name of its qube, and the volume's name."""

    uuid: str
    qube: str
    volume: str


class Tokens:
    """Those that are good; ``clock`` counts seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_caller: dict[str, dict[str, tuple[float, Copied]]] = {}

    def give(self, caller: str, copied: Copied) -> str:
        """A new token for the caller of this uuid."""
        self._forget_old()
        own = self._by_caller.setdefault(caller, {})
        if len(own) >= MOST:
            del own[next(iter(own))]
        token = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
        own[token] = self._clock() + LIFE, copied
        return token

    def look(self, caller: str, untrusted_token: str) -> Copied | None:
        """What the token stands for, if it is good for this caller; it stays good."""
        until, copied = self._by_caller.get(caller, {}).get(untrusted_token, (0.0, None))
        return copied if until > self._clock() else None

    def take(self, caller: str, untrusted_token: str) -> Copied:
        """What the token stands for, which is good no more after this.

        Raises:
            NoSuchToken: it is not good, or not for this caller.
        """
        copied = self.look(caller, untrusted_token)
        if copied is None:
            raise NoSuchToken("no such token; it is good once, for its caller and for ten minutes")
        del self._by_caller[caller][untrusted_token]
        return copied

    def _forget_old(self) -> None:
        now = self._clock()
        for caller, own in list(self._by_caller.items()):
            good = {token: entry for token, entry in own.items() if entry[0] > now}
            if good:
                self._by_caller[caller] = good
            else:
                del self._by_caller[caller]
