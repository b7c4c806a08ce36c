"""Who is calling, and who vouches for it: the door that a connection came through, never its bytes.

A door decides twice. ``admits`` looks at the process on the other end, as the kernel tells it, before a byte
is read; ``caller`` names the qube that a request is judged as. Only the doors of dom0 look at the source that
a request names; on all others it is not read (stock clients write ``dom0`` there).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from qubesd.errors import NoSuchQube
from qubesd.model.names import check_qube_name, check_uuid
from qubesd.model.state import Klass, Qube, System

_CREDENTIALS = struct.Struct("3i")
"""Process, user and group id, as SO_PEERCRED has them."""

_SO_PEERGROUPS = 59
"""Linux 4.13 and later; the supplementary groups of the peer, which Python's ``socket`` does not name."""

_MOST_GROUPS = 256
"""Python takes 1,024 bytes of an option at most. A peer with more groups than that is nobody."""


Account = str | int
"""Whose connections are counted together: a qube by uuid, or by name where a request through dom0's door
names it, or a user by uid."""

DOM0_ACCOUNT = "dom0"
"""All of dom0's own."""


class Peer:
    """The process at the other end when it connected, as the kernel tells it."""

    __slots__ = ("_connection", "uid")

    def __init__(self, connection: socket.socket) -> None:
        """Raises ``OSError`` where the kernel does not say, which is as good as nobody."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.uid: int = _CREDENTIALS.unpack(credentials)[1]
        self._connection = connection

    def is_in(self, group: int | None) -> bool:
        """Whether its group, or one of its further groups, is this one. Asks the kernel, so the connection
        must still be open; raises ``OSError`` as the constructor, also for a peer of more than 256 groups."""
        if group is None:
            return False
        credentials = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        further = self._connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * 4)
        return group in (
            _CREDENTIALS.unpack(credentials)[2],
            *struct.unpack(f"{len(further) // 4}I", further),
        )


@dataclass(frozen=True, slots=True)
class Dom0Door:
    """``qubesd.sock`` and the other sockets of dom0: root, the daemon's own user, and one group.

    The request names its source, since the qrexec daemon calls here for other qubes. ``trusted`` doors judge
    nobody (the internal ones); the others judge every source but dom0.
    """

    vouches: ClassVar[bool] = True
    """Whether a policy daemon in front of this door has spoken already."""

    own_uid: int
    group: int | None
    trusted: bool = False

    def admits(self, peer: Peer, system: System) -> bool:
        return peer.uid in (0, self.own_uid) or peer.is_in(self.group)

    def caller(self, untrusted_source: str, peer: Peer, system: System) -> Qube:
        """Raises as ``find_qube``."""
        return find_qube(untrusted_source, system)

    def judges(self, caller: Qube) -> bool:
        return not self.trusted and caller.klass is not Klass.ADMIN

    def account(self, peer: Peer) -> Account:
        """Whose connections are counted together."""
        return DOM0_ACCOUNT


@dataclass(frozen=True, slots=True)
class QubeDoor:
    """``rpc/<uuid>.sock``: exactly one qube. The process that carries its bytes is root, the daemon's own
    user, or the configured owner of these channels."""

    vouches: ClassVar[bool] = False

    uuid: str
    own_uid: int
    owner: int | None = None

    def admits(self, peer: Peer, system: System) -> bool:
        return peer.uid in (0, self.own_uid) or peer.uid == self.owner

    def caller(self, untrusted_source: str, peer: Peer, system: System) -> Qube:
        """Raises ``NoSuchQube`` where the qube has gone since."""
        return _managed(system.by_uuid.get(self.uuid), system)

    def judges(self, caller: Qube) -> bool:
        return True

    def account(self, peer: Peer) -> Account:
        return self.uuid


@dataclass(frozen=True, slots=True)
class UserDoor:
    """``user.sock``: a local user, judged as the management qube that the configuration maps the user to.

    Who has a door of its own is refused here: root, the daemon's own user, and dom0's group. A user that is
    not mapped, or mapped to a qube that does not exist, is refused in the same way: closed without a byte.
    A user stays with the very qube that had the name first: another one of that name is not the user's before
    the daemon is started again.
    """

    vouches: ClassVar[bool] = False

    users: Mapping[int, str]
    own_uid: int
    group: int | None
    _bound: dict[int, str] = field(default_factory=dict)
    """The uuids of the qubes, by user."""

    def bind(self, system: System) -> None:
        """Bind the users whose qubes are there and that have none yet."""
        for user, name in self.users.items():
            qube = system.qubes.get(name)
            if qube is not None:
                self._bound.setdefault(user, qube.uuid)

    def admits(self, peer: Peer, system: System) -> bool:
        if peer.uid in (0, self.own_uid) or peer.is_in(self.group):
            return False
        self.bind(system)
        qube = system.find(f"uuid:{self._bound.get(peer.uid)}")
        return qube is not None and qube.klass is not Klass.ADMIN

    def caller(self, untrusted_source: str, peer: Peer, system: System) -> Qube:
        """Raises ``NoSuchQube`` where the qube has gone since."""
        return _managed(system.by_uuid.get(self._bound.get(peer.uid, "")), system)

    def judges(self, caller: Qube) -> bool:
        return True

    def account(self, peer: Peer) -> Account:
        return peer.uid


Door = Dom0Door | QubeDoor | UserDoor


def _managed(name: str | None, system: System) -> Qube:
    qube = None if name is None else system.qubes.get(name)
    if qube is None or qube.klass is Klass.ADMIN:
        raise NoSuchQube("the calling qube does not exist")
    return qube


def find_qube(untrusted_token: str, system: System) -> Qube:
    """The qube that a word of a header names, by its name or by ``uuid:`` and its uuid.

    Raises:
        BadValue, InvalidUuid: this is no name, or no uuid.
        NoSuchQube: there is none.
    """
    qube = system.find(untrusted_token)
    if qube is not None:
        return qube
    if untrusted_token.startswith("uuid:"):
        check_uuid(untrusted_token[5:])
    else:
        check_qube_name(untrusted_token)
    raise NoSuchQube(f"no such domain: {untrusted_token!r}")
