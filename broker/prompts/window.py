"""A question in a window of its own.

Texts of others are set as texts, never as markup. Nothing in the window answers until it has had the focus,
and no key was pressed in it, for ``PAUSE`` seconds; only the window manager's own way to close it denies at
once.
"""

from __future__ import annotations

import time

from broker.prompts.front import PAUSE, Answer
from broker.prompts.messages import Question
from broker.prompts.texts import service_parts, shown, time_left
from broker.prompts.toolkit import Gdk, GLib, Gtk, Pango

TITLE = "Policy question"

_MARGIN = 18
_GAP = 12
_WIDTH = 60
"""Characters of a text in one line."""
_LIST_HEIGHT = 190
_FEW = 5
"""Choices that need no scrolling."""
_ICON = "computer"
"""Where the theme has not the icon of a qube."""
_ENTER = (Gdk.KEY_Return, Gdk.KEY_KP_Enter, Gdk.KEY_ISO_Enter)


class QuestionWindow:
    """Stays until it is answered or closed.

    Args:
        deadline: on the monotonic clock; only shown, whoever put the question closes the window then.
        answer: called once with what the person says, or ``None`` to deny; not after ``close``.
    """

    def __init__(self, question: Question, deadline: float, answer: Answer) -> None:
        self._question = question
        self._deadline = deadline
        self._answer: Answer | None = answer
        self._awake = False
        self._waking: int | None = None
        """The source that runs out after ``PAUSE``."""
        self._time_left = Gtk.Label(xalign=0)
        self._list = self._choices()
        self._cancel = Gtk.Button(label="Cancel", sensitive=False)
        self._ok = Gtk.Button(label="OK", sensitive=False)
        self._window = Gtk.Window(title=TITLE, resizable=False, window_position=Gtk.WindowPosition.CENTER)
        self._window.set_keep_above(True)
        # On every workspace, and told of where the window manager does not give it the focus.
        self._window.stick()
        self._window.set_urgency_hint(True)
        self._window.set_icon_name("dialog-question")
        self._window.add(self._content())
        self._window.connect("delete-event", self._closed)
        self._window.connect("destroy", lambda _: self._say(None))
        self._window.connect("notify::is-active", lambda *_: self._doze())
        self._window.connect("key-press-event", self._pressed)
        self._list.connect("button-press-event", lambda *_: not self._awake)
        self._list.connect("row-selected", self._selected)
        self._cancel.connect("clicked", lambda _: self._say(None))
        self._ok.connect("clicked", lambda _: self._allow())
        self._ticking = GLib.timeout_add(1000, self._tick)
        self._tick()
        self._window.show_all()
        self._window.present()

    def close(self) -> None:
        """Take it off the screen, unanswered."""
        if self._answer is None:
            return
        self._answer = None
        GLib.source_remove(self._ticking)
        self._stop_waking()
        self._window.destroy()

    def _content(self) -> Gtk.Box:
        content = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=_GAP, margin=_MARGIN)
        heading = Gtk.Label(label=self._question.heading, xalign=0)
        heading.set_attributes(_attributes(_bold(0)))
        content.add(heading)
        content.add(self._facts())
        content.add(Gtk.Label(label="Where it may go:", xalign=0))
        few = len(self._question.targets) <= _FEW
        frame = Gtk.ScrolledWindow(
            hscrollbar_policy=Gtk.PolicyType.NEVER,
            vscrollbar_policy=Gtk.PolicyType.NEVER if few else Gtk.PolicyType.AUTOMATIC,
            propagate_natural_height=True,
            max_content_height=_LIST_HEIGHT,
            shadow_type=Gtk.ShadowType.IN,
        )
        frame.add(self._list)
        content.add(frame)
        buttons = Gtk.Box(spacing=_GAP)
        buttons.add(self._time_left)
        for button in (self._ok, self._cancel):
            buttons.pack_end(button, False, False, 0)
        content.add(buttons)
        return content

    def _facts(self) -> Gtk.Grid:
        question = self._question
        facts = Gtk.Grid(column_spacing=_GAP, row_spacing=6)
        source = Gtk.Box(spacing=6)
        source.add(self._icon(question.source, Gtk.IconSize.MENU))
        source.add(Gtk.Label(label=question.source))
        rows = [("Source", source)]
        if question.service is not None:
            marked = _bold(len(service_parts(question.service)[0]))
            rows.append(("Service", _wrapped(question.service, marked)))
        for name, untrusted_text in question.untrusted_facts:
            rows.append((name.capitalize(), _text(untrusted_text)))
        for row, (name, widget) in enumerate(rows):
            label = _remark(name, "dim-label")
            label.set_xalign(1)
            label.set_yalign(0)
            facts.attach(label, 0, row, 1, 1)
            facts.attach(widget, 1, row, 1, 1)
        return facts

    def _choices(self) -> Gtk.ListBox:
        choices = Gtk.ListBox(selection_mode=Gtk.SelectionMode.SINGLE, activate_on_single_click=False)
        for target in self._question.targets:
            line = Gtk.Box(spacing=_GAP, margin=4)
            line.add(self._icon(target, Gtk.IconSize.LARGE_TOOLBAR))
            line.add(Gtk.Label(label=target))
            if target == self._question.default_target:
                line.add(Gtk.Label(label="(default)"))
            row = Gtk.ListBoxRow()
            row.add(line)
            choices.add(row)
            if target == self._question.default_target:
                choices.select_row(row)
        return choices

    def _icon(self, name: str, size: Gtk.IconSize) -> Gtk.Image:
        icon = self._question.icons.get(name, "")
        known = bool(icon) and Gtk.IconTheme.get_default().has_icon(icon)
        return Gtk.Image.new_from_icon_name(icon if known else _ICON, size)

    def _tick(self) -> bool:
        self._time_left.set_text(f"Denied by itself in {time_left(self._deadline - time.monotonic())}")
        return bool(GLib.SOURCE_CONTINUE)

    def _doze(self) -> None:
        """Have nothing answer until the window has had the focus for a while from now on."""
        self._stop_waking()
        self._awake = False
        self._enable()
        if self._window.is_active():
            self._waking = GLib.timeout_add(round(PAUSE * 1000), self._wake)

    def _wake(self) -> bool:
        self._waking = None
        self._awake = True
        self._enable()
        return bool(GLib.SOURCE_REMOVE)

    def _stop_waking(self) -> None:
        if self._waking is not None:
            GLib.source_remove(self._waking)
            self._waking = None

    def _selected(self, *_: object) -> None:
        """GTK selects the first row where the list gets the focus; what nobody chose is not chosen."""
        if not self._awake and self._question.default_target is None:
            self._list.unselect_all()
        self._enable()

    def _enable(self) -> None:
        self._cancel.set_sensitive(self._awake)
        self._ok.set_sensitive(self._awake and self._list.get_selected_row() is not None)

    def _pressed(self, _: Gtk.Window, event: Gdk.EventKey) -> bool:
        """Whether GTK shall not see the key. Enter is OK while the choices have the focus; a button that has
        it is pressed by GTK."""
        if not self._awake:
            self._doze()
            return True
        if event.keyval == Gdk.KEY_Escape:
            self._say(None)
            return True
        if event.keyval in _ENTER and not isinstance(self._window.get_focus(), Gtk.Button):
            if self._ok.get_sensitive():
                self._allow()
            return True
        return False

    def _closed(self, *_: object) -> bool:
        self._say(None)
        return True

    def _allow(self) -> None:
        self._say(self._question.targets[self._list.get_selected_row().get_index()])

    def _say(self, target: str | None) -> None:
        answer = self._answer
        if answer is not None:
            self.close()
            answer(target)


def _text(untrusted_text: str) -> Gtk.Box:
    """A text of others, in as many lines as it needs; what is said of it is set apart by its looks."""
    text, missing = shown(untrusted_text)
    box = Gtk.Box(orientation=Gtk.Orientation.VERTICAL)
    if text:
        box.add(_wrapped(text, Pango.attr_family_new("monospace")))
    else:
        box.add(_remark("empty", "dim-label"))
    if missing:
        box.add(_remark(f"cut short: {missing:,} more characters", "error"))
    return box


def _remark(text: str, style: str) -> Gtk.Label:
    label = Gtk.Label(label=text, xalign=0)
    label.get_style_context().add_class(style)
    return label


def _wrapped(text: str, looks: Pango.Attribute) -> Gtk.Label:
    """A text that is broken wherever its line is full, without a hyphen, which would look like a part of
    it."""
    label = Gtk.Label(label=text, xalign=0, wrap=True, max_width_chars=_WIDTH)
    label.set_line_wrap_mode(Pango.WrapMode.CHAR)
    label.set_attributes(_attributes(looks, Pango.attr_insert_hyphens_new(False)))
    return label


def _attributes(*looks: Pango.Attribute) -> Pango.AttrList:
    attributes = Pango.AttrList()
    for look in looks:
        attributes.insert(look)
    return attributes


def _bold(start: int) -> Pango.Attribute:
    """Everything from this character on, of an ASCII text."""
    bold = Pango.attr_weight_new(Pango.Weight.BOLD)
    bold.start_index = start
    return bold
