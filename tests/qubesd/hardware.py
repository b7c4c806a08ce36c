"""The devices that are plugged into qubes, and a stand-in for guests, which announce them when they start."""

from __future__ import annotations

import shutil
from pathlib import Path

from qubesd.bus import Bus
from qubesd.core.power_events import DomainAppeared, DomainUnpaused


def plug_in(root: Path, backend: str, port: str, devclass: str = "block", **keys: str) -> Path:
    """Plug in a device that its guest announces with these keys, now if it runs and whenever it starts;
    returns where it does."""
    device = _socket(root, backend, devclass) / port
    device.mkdir(parents=True)
    for key, value in keys.items():
        (device / key).write_text(value)
    announced = _list(root, backend, devclass)
    if announced.exists():
        shutil.copytree(device, announced / port)
    return announced / port


def pull_out(root: Path, backend: str, port: str, devclass: str = "block") -> None:
    """Take the device away, if there is one."""
    for place in (_socket(root, backend, devclass), _list(root, backend, devclass)):
        shutil.rmtree(place / port, ignore_errors=True)


def announce_at_start(root: Path, bus: Bus) -> None:
    """From now on, every guest that starts says what is plugged into it."""
    for kind in (DomainUnpaused, DomainAppeared):
        bus.subscribe(kind, lambda event: _announce(root, event.subject))


def _announce(root: Path, backend: str) -> None:
    for devclass in ("block", "usb"):
        plugged = _socket(root, backend, devclass)
        if plugged.exists():
            shutil.copytree(plugged, _list(root, backend, devclass), dirs_exist_ok=True)


def _socket(root: Path, backend: str, devclass: str) -> Path:
    return root / "hardware" / backend / devclass


def _list(root: Path, backend: str, devclass: str) -> Path:
    return root / f"run/qubesdb/{backend}/qubes-{devclass}-devices"
