"""Notes as the desktop shows them (org.freedesktop.Notifications), or a line of the log where it does not."""

from __future__ import annotations

import html
import logging

from broker.colour import Colours
from broker.prompts.notes import Told
from broker.prompts.sheet import note_line
from broker.prompts.toolkit import Gio, GLib

_log = logging.getLogger(__name__)

_SERVICE = "org.freedesktop.Notifications"
_PATH = "/org/freedesktop/Notifications"
_TITLE = "Calls between qubes"
_ICONS = {"allow": "dialog-information", "deny": "dialog-error", "fail": "dialog-warning"}
_PATIENCE = 5_000
"""Milliseconds that the desktop may take."""


def show_bubble(told: Told) -> None:
    """Nothing waits for it; it never raises."""
    Gio.bus_get(Gio.BusType.SESSION, None, _connected, told)


def _connected(_: object, result: Gio.AsyncResult, told: Told) -> None:
    text = note_line(told, Colours(enabled=False))
    icon = _ICONS[told.note.resolution]
    # Desktops read the body as markup.
    message = GLib.Variant("(susssasa{sv}i)", ("", 0, icon, _TITLE, html.escape(text), (), {}, -1))
    try:
        bus = Gio.bus_get_finish(result)
    except GLib.Error as error:
        _tell_the_log(text, error)
        return
    bus.call(
        _SERVICE,
        _PATH,
        _SERVICE,
        "Notify",
        message,
        None,
        Gio.DBusCallFlags.NONE,
        _PATIENCE,
        None,
        _called,
        text,
    )


def _called(bus: Gio.DBusConnection, result: Gio.AsyncResult, text: str) -> None:
    try:
        bus.call_finish(result)
    except GLib.Error as error:
        _tell_the_log(text, error)


def _tell_the_log(text: str, error: GLib.Error) -> None:
    _log.info("%s (the desktop shows no notification: %s)", text, error.message)
