"""A desktop's notification service: writes what it is told to show, one JSON list a line. Runs with the
system's Python, which has GLib."""

from __future__ import annotations

import json

from broker.prompts.toolkit import Gio, GLib

_NAME = "org.freedesktop.Notifications"
_INTERFACE = f"""
<node><interface name="{_NAME}"><method name="Notify">
  <arg type="s" direction="in"/><arg type="u" direction="in"/><arg type="s" direction="in"/>
  <arg type="s" direction="in"/><arg type="s" direction="in"/><arg type="as" direction="in"/>
  <arg type="a{{sv}}" direction="in"/><arg type="i" direction="in"/><arg type="u" direction="out"/>
</method></interface></node>
"""


def notified(*call: object) -> None:
    parameters, invocation = call[5:7]
    assert isinstance(parameters, GLib.Variant)
    print(json.dumps(parameters.unpack()), flush=True)
    assert isinstance(invocation, Gio.DBusMethodInvocation)
    invocation.return_value(GLib.Variant("(u)", (1,)))


def main() -> None:
    bus = Gio.bus_get_sync(Gio.BusType.SESSION, None)
    (interface,) = Gio.DBusNodeInfo.new_for_xml(_INTERFACE).interfaces
    bus.register_object("/org/freedesktop/Notifications", interface, notified, None, None)
    Gio.bus_own_name_on_connection(
        bus, _NAME, Gio.BusNameOwnerFlags.NONE, lambda *_: print("[]", flush=True), None
    )
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
