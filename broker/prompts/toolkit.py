"""GTK 3 and what belongs to it, all of one version. Importing it raises ``ImportError`` or ``ValueError``
where the machine has it not."""

import gi

gi.require_version("Gdk", "3.0")
gi.require_version("Gtk", "3.0")

from gi.repository import Gdk, Gio, GLib, Gtk, Pango  # noqa: E402

__all__ = ["GLib", "Gdk", "Gio", "Gtk", "Pango"]
