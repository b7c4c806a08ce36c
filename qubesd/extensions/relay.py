"""The qubes of other hosts that a relay carries calls to, as its guest is told (``spec/domains.md`` 3.3)."""

from __future__ import annotations

from collections.abc import Mapping

from qubesd.extension import Extension, Look
from qubesd.model.state import Klass, Qube


def _entries(look: Look, qube: Qube) -> Mapping[str, str]:
    """By the name that a remote qube has here, the one that it has on its own host."""
    users = (look.system.qubes[name] for name in look.users_of(qube.name))
    return {
        f"/remote/{remote.name}": str(remote.properties.get("remote_name") or remote.name)
        for remote in users
        if remote.klass is Klass.REMOTE and remote.properties.get("relayvm") == qube.name
    }


EXTENSION = Extension(entries=_entries)
