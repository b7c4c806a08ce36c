"""Reads a message, opens its window, and writes the texts in it as JSON. Runs with the system's Python, which
has GTK."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

from broker.prompts.messages import Question, parse
from broker.prompts.toolkit import Gtk
from broker.prompts.window import QuestionWindow


def labels(widget: Gtk.Widget) -> Iterator[Gtk.Label]:
    if isinstance(widget, Gtk.Label):
        yield widget
    elif isinstance(widget, Gtk.Container):
        children = widget.get_children()
        # GTK has those of a grid the other way round.
        for child in reversed(children) if isinstance(widget, Gtk.Grid) else children:
            yield from labels(child)


def main() -> None:
    question = parse(sys.stdin.buffer.read())
    assert isinstance(question, Question)
    opened = QuestionWindow(question, time.monotonic() + 100, lambda _: None)
    (window,) = Gtk.Window.list_toplevels()
    json.dump([(label.get_text(), label.get_use_markup()) for label in labels(window)], sys.stdout)
    opened.close()


if __name__ == "__main__":
    main()
