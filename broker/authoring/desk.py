"""Where an author's files are: in dom0 they are edited in place, from a qube over the Policy Admin API."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import replace
from typing import Protocol

from broker.described import ToolError
from broker.editing.edits import NEW_TOKEN, PolicyEdits, places_of
from broker.editing.entry import Author
from broker.editing.names import INCLUDE, SUFFIX
from broker.editing.store import token_of
from broker.places import STATUS_SOCKET
from broker.wire import Failure, FramingError, parse_reply
from qubesd.config import Config
from qubesd.errors import NoSuchPolicyFile, PolicyAdminError, PolicySyntaxError, PolicyTokenError

CLIENT = "qrexec-client-vm"
"""The program of a qube that calls services."""

PATIENCE = 120.0
"""Seconds that a service in dom0 may take: a question to the user is among them."""


class Desk(Protocol):
    """The verbs on the files of one policy; files by ``30-user.policy`` and ``include/team-a``.

    All raise ``PolicyAdminError`` with one of its kinds, ``StoreError`` where the disk fails, and
    ``ToolError`` where nobody can be asked.
    """

    def names(self, included: bool) -> list[str]:
        """The files as lists name them, sorted."""

    def get(self, file: str) -> tuple[str, bytes]:
        """The token and the content; the token of a new file and nothing where there is none."""

    def replace(self, file: str, token: str, content: bytes) -> None: ...

    def remove(self, file: str, token: str) -> None: ...


def desk_of(config: Config) -> Desk:
    """The files of this dom0; in a qube, which has none, those of dom0."""
    return OverCalls() if is_qube(config) else InPlace(edits_of(config))


def edits_of(config: Config) -> PolicyEdits:
    """The verbs that dom0 alone has. Raises ``ToolError`` in a qube."""
    if is_qube(config):
        raise ToolError("this is in dom0: run it there")
    return PolicyEdits(replace(places_of(config), enforced=is_enforced(config)))


def is_enforced(config: Config) -> bool:
    """Whether all who decide by the policy here carry the Admin API's calls out themselves; so does qubesd,
    but not ``qrexec-policy-daemon``, which refuses rules that it could not hold anybody to."""
    return not config.policy_socket.with_name(STATUS_SOCKET).is_socket()


def is_qube(config: Config) -> bool:
    """Whether this is no dom0: there is no policy, and dom0 can be called."""
    return not config.policy_dir.is_dir() and shutil.which(CLIENT) is not None


def author() -> Author:
    """Who types in dom0: the user, or the one who became root by ``sudo``."""
    user = os.environ.get("SUDO_USER", "")
    if not user:
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = str(os.getuid())
    return Author("dom0", user)


class InPlace:
    """The files of this dom0, under the lock of all editors."""

    def __init__(self, edits: PolicyEdits) -> None:
        self.edits = edits

    def names(self, included: bool) -> list[str]:
        return self.edits.names(included)

    def get(self, file: str) -> tuple[str, bytes]:
        try:
            content = self.edits.get(file)
        except NoSuchPolicyFile:
            return NEW_TOKEN, b""
        return token_of(content), content

    def replace(self, file: str, token: str, content: bytes) -> None:
        self.edits.replace(author(), file, token, content)

    def remove(self, file: str, token: str) -> None:
        self.edits.remove(author(), file, token)


class OverCalls:
    """The files of dom0, by its services."""

    def names(self, included: bool) -> list[str]:
        return _called("List", INCLUDE if included else "").decode("utf-8", "replace").splitlines()

    def get(self, file: str) -> tuple[str, bytes]:
        try:
            token, _, content = _called("Get", file).partition(b"\n")
        except NoSuchPolicyFile:
            return NEW_TOKEN, b""
        return token.decode("ascii", "replace"), content

    def replace(self, file: str, token: str, content: bytes) -> None:
        _called("Replace", file, token.encode("ascii") + b"\n" + content)

    def remove(self, file: str, token: str) -> None:
        _called("Remove", file, token.encode("ascii"))


def _called(verb: str, file: str, payload: bytes = b"") -> bytes:
    """What a service answers, whether it frames its answers as qubesd does or tells by its exit status."""
    folder = "include." if file.startswith(INCLUDE) else ""
    argument = file.removeprefix(INCLUDE).removesuffix(SUFFIX)
    service = f"policy.{folder}{verb}" + (f"+{argument}" if argument else "")
    try:
        done = subprocess.run(
            [CLIENT, "dom0", service], input=payload, capture_output=True, timeout=PATIENCE, check=False
        )
    except OSError as error:
        raise ToolError(f"{CLIENT}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{service}: dom0 does not answer") from error
    if done.returncode == 0:
        try:
            reply = parse_reply(done.stdout)
        except FramingError:
            return done.stdout
        if not isinstance(reply, Failure):
            return reply
        kind, message = reply.kind, reply.message
    else:
        kind, _, message = done.stderr.decode("utf-8", "replace").strip().partition(" ")
    for known in (NoSuchPolicyFile, PolicySyntaxError, PolicyTokenError):
        if kind == known.wire_name:
            raise known(message)
    raise PolicyAdminError(f"{kind} {message}".strip() or f"{service}: refused with status {done.returncode}")
