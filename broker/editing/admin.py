"""The calls of the Policy Admin API: from service, argument and payload to the bytes of the answer.

The same for both doors: qubesd's sockets, and the program that the qrexec daemon runs. The order of checks is
the stock one (``spec/policy-daemon.md`` 8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from broker.editing.edits import PolicyEdits
from broker.editing.entry import Author
from broker.editing.names import file_of
from broker.editing.store import token_of
from broker.editing.table import METHODS
from qubesd.api.method import Need
from qubesd.errors import PolicyProtocolError

_ARGUMENT = re.compile(r"[A-Za-z0-9_.+-]*")
_SERVICE = re.compile(r"[A-Za-z0-9_.-]+")

LONGEST_TOKEN = 100
"""Bytes in which a payload has to come to the end of its token."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One call: what it is about, and whether that is in the include folder."""

    edits: PolicyEdits
    author: Author
    included: bool
    untrusted_argument: str
    untrusted_payload: bytes

    def file(self) -> str:
        """Raises ``BadPolicyName``, ``BadPolicyPath``."""
        file = file_of(self.untrusted_argument, self.included)
        self.edits.check_place(file)
        return file


def _list(call: _Call) -> bytes:
    """Name the files."""
    return _lines(call.edits.names(call.included))


def _get(call: _Call) -> bytes:
    """Tell the token and the content of a file."""
    content = call.edits.get(call.file())
    return f"{token_of(content)}\n".encode("ascii") + content


def _replace(call: _Call) -> bytes:
    """Give a file a new content."""
    file = call.file()
    untrusted_token, end, content = call.untrusted_payload.partition(b"\n")
    if not end:
        raise PolicyProtocolError("expected a line with a token before the content")
    call.edits.replace(call.author, file, _token(untrusted_token), content)
    return b""


def _remove(call: _Call) -> bytes:
    """Take a file away."""
    file = call.file()
    if not call.untrusted_payload:
        raise PolicyProtocolError("expected a token")
    call.edits.remove(call.author, file, _token(call.untrusted_payload))
    return b""


def _get_files(call: _Call) -> bytes:
    """Name the files with rules for a service."""
    if not _SERVICE.fullmatch(call.untrusted_argument):
        raise PolicyProtocolError("expected a service, such as qubes.Filecopy")
    return _lines(call.edits.files_for(call.untrusted_argument))


_BY_FILE = {"List": _list, "Get": _get, "Replace": _replace, "Remove": _remove}
_CALLS: Mapping[str, Callable[[_Call], bytes]] = {
    **{f"policy.{name}": call for name, call in _BY_FILE.items()},
    **{f"policy.include.{name}": call for name, call in _BY_FILE.items()},
    "policy.GetFiles": _get_files,
}


def answer(
    edits: PolicyEdits,
    author: Author,
    untrusted_service: str,
    untrusted_argument: str,
    untrusted_payload: bytes,
) -> bytes:
    """Carry a call out; blocks. ``untrusted_argument`` is without the ``+``.

    Raises:
        PolicyAdminError: with one of its kinds.
        StoreError: the disk fails, and nothing was changed.
    """
    if not _ARGUMENT.fullmatch(untrusted_argument):
        raise PolicyProtocolError("there is a character in the argument that no argument has")
    method = METHODS.get(untrusted_service)
    if method is None:
        raise PolicyProtocolError("no such call")
    if untrusted_argument and method.argument is Need.FORBIDDEN:
        raise PolicyProtocolError("unexpected argument")
    if untrusted_payload and method.payload is Need.FORBIDDEN:
        raise PolicyProtocolError("unexpected payload")
    included = untrusted_service.startswith("policy.include.")
    return _CALLS[method.name](_Call(edits, author, included, untrusted_argument, untrusted_payload))


def _token(untrusted_token: bytes) -> str:
    if len(untrusted_token) > LONGEST_TOKEN:
        raise PolicyProtocolError("expected a token: any, new, or sha256: and 64 digits")
    return untrusted_token.decode("ascii", "replace")


def _lines(names: list[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
