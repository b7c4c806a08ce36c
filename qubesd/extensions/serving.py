"""Who shows a qube's windows and plays its sound, as its guest is told (``spec/domains.md`` 6.7).

The tags ``guivm-*``, ``audiovm-*`` and ``relayvm-*`` are not made here: policies build on them, so the core
makes them with the property itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from qubesd.extension import Extension, Look
from qubesd.model.properties import read
from qubesd.model.state import DOM0, Qube


def _gui(look: Look, qube: Qube) -> Mapping[str, str]:
    server = read(look, qube, "guivm").value
    layout = str(read(look, qube, "keyboard_layout").value)
    return {
        "/qubes-gui-enabled": str(server is not None),
        "/keyboard-layout": layout,
        **_number_of(look, qube, "/qubes-gui-domain-xid", server),
    }


def _audio(look: Look, qube: Qube) -> Mapping[str, str]:
    return _number_of(look, qube, "/qubes-audio-domain-xid", read(look, qube, "audiovm").value)


def _number_of(look: Look, qube: Qube, key: str, server: object) -> Mapping[str, str]:
    """The number of the server's domain, where it has one and is not the qube itself."""
    if server is None or server == qube.name:
        return {}
    xid = 0 if server == DOM0 else look.running(str(server)).xid
    return {} if xid < 0 else {key: str(xid)}


GUI = Extension(entries=_gui)
AUDIO = Extension(entries=_audio)
