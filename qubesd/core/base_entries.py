"""What every running qube of this host finds in its database, whatever extensions there are
(``spec/domains.md`` 6.7)."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping

from qubesd.core import network_entries
from qubesd.extension import Look
from qubesd.model import features
from qubesd.model.lineage import netvm_of
from qubesd.model.network import provides_network
from qubesd.model.properties import read
from qubesd.model.state import Klass, Qube

SEED = "/qubes-random-seed"
"""Written once in a run, as a start begins: a guest that found another one later could not tell why."""
LISTS = ("/qubes-block-devices", "/qubes-usb-devices")
"""There and empty when a guest begins, and then the guest's own."""

_SEED_BYTES = 64
_PERSISTENCE = {
    Klass.TEMPLATE: "full",
    Klass.STANDALONE: "full",
    Klass.APP: "rw-only",
    Klass.DISPOSABLE: "none",
}


def entries(look: Look, qube: Qube, zone: str | None) -> Mapping[str, str]:
    """The entries as the system is now; ``zone`` is the host's time zone, ``None`` where it is not known."""
    template = qube.properties.get("template")
    found = {
        "/name": qube.name,
        "/type": str(qube.klass),
        "/default-user": str(read(look, qube, "default_user").value or ""),
        "/qubes-vm-type": _older_type(look, qube),
        "/qubes-vm-updateable": str(read(look, qube, "updateable").value),
        "/qubes-vm-persistence": _PERSISTENCE[qube.klass],
        "/qubes-debug-mode": str(int(bool(read(look, qube, "debug").value))),
        "/qubes-base-template": template if isinstance(template, str) else "",
    }
    if zone is not None and not features.with_template(look, qube, "anon-timezone"):
        found["/qubes-timezone"] = zone
    return {**found, **network_entries.own(look, qube)}


def fresh_seed() -> str:
    """Randomness for one run of a guest."""
    return base64.b64encode(secrets.token_bytes(_SEED_BYTES)).decode("ascii")


def _older_type(look: Look, qube: Qube) -> str:
    """What Qubes 3 called such a qube."""
    if qube.klass is Klass.TEMPLATE:
        return "TemplateVM"
    if not provides_network(qube):
        return "AppVM"
    return "NetVM" if netvm_of(look.system, qube) is None else "ProxyVM"
