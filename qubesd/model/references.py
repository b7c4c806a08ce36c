"""Properties whose value is a qube or a label: which ones are taken, and which cannot be let go.

Errors name the qube that the caller asked about and nothing else: who else refers to it is not theirs to
read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from qubesd.errors import BadPropertyValue, NoSuchLabel, QubeInUse, QubeNotHalted
from qubesd.model.lineage import named
from qubesd.model.state import Klass, Label, Qube, System, Value
from qubesd.model.view import View

_DISPOSABLE_TEMPLATES = ("default_dispvm", "management_dispvm")


def local(view: View, name: str) -> Qube:
    """The qube of that name on this host; ``BadPropertyValue`` where there is none, or it is a RemoteVM."""
    qube = view.system.qubes.get(name)
    if qube is None or qube.klass is Klass.REMOTE:
        raise BadPropertyValue(f"no qube {name!r} on this host")
    return qube


def makes_disposables(qube: Qube) -> bool:
    """Whether disposables can be made from this qube."""
    return qube.properties.get("template_for_dispvms") is True


QUEUE = "preload-dispvm"
"""The feature of a template that names the disposables which wait to be handed out."""


def waiting(template: Qube) -> list[str]:
    """The names of the disposables that wait, the oldest first."""
    return template.features.get(QUEUE, "").split()


def is_preloaded(view: View, qube: Qube) -> bool:
    """Whether this disposable waits in its template's queue."""
    template = named(view.system, qube.properties.get("template"))
    return template is not None and qube.name in waiting(template)


def find_label(labels: Mapping[str, Label], text: str) -> Label | None:
    """The label of that name, or of that index written as a number or ``label-`` and a number."""
    if text in labels:
        return labels[text]
    digits = text.removeprefix("label-")
    if digits.isascii() and digits.isdigit():
        return next((label for label in labels.values() if str(label.index) == digits), None)
    return None


def label_fits(view: View, owner: Qube, value: str) -> Value:
    """A label by its name; whoever takes an index from a caller looks it up before."""
    if value not in view.system.labels:
        raise NoSuchLabel(f"no label {value!r}")
    return value


def qube_fits(view: View, owner: Qube | None, value: str | None) -> Value:
    return value if value is None else local(view, value).name


def template_fits(view: View, owner: Qube | None, value: str | None) -> Value:
    """None, or a TemplateVM."""
    if value is not None and local(view, value).klass is not Klass.TEMPLATE:
        raise BadPropertyValue(f"qube {value!r} is no TemplateVM")
    return value


def disposable_template_fits(view: View, owner: Qube | None, value: str | None) -> Value:
    """None, or a qube that disposables can be made from."""
    if value is not None and not makes_disposables(local(view, value)):
        raise BadPropertyValue(
            f"no disposables can be made from qube {value!r}: 'template_for_dispvms' is False"
        )
    return value


def app_template_fits(view: View, owner: Qube, value: str | None) -> Value:
    """An AppVM changes its template while it is halted, and the disposables made from it as well."""
    if value is None:
        raise BadPropertyValue(f"qube {owner.name!r} needs a template")
    template_fits(view, owner, value)
    _halted(view, owner)
    for qube in view.system.qubes.values():
        if (
            qube.klass is Klass.DISPOSABLE
            and qube.properties.get("template") == owner.name
            and view.running(qube.name).state != "Halted"
            and not is_preloaded(view, qube)
        ):
            raise QubeInUse(f"disposables made from qube {owner.name!r} run: shut them down before")
    return value


def disposable_own_template_fits(view: View, owner: Qube, value: str | None) -> Value:
    """A disposable changes its template while it is halted."""
    if value is None:
        raise BadPropertyValue(f"qube {owner.name!r} needs a template")
    disposable_template_fits(view, owner, value)
    _halted(view, owner)
    return value


def template_for_dispvms_fits(view: View, owner: Qube, value: bool) -> Value:
    """A qube stays a template for disposables while a global, a disposable or a qube's own setting says it
    is."""
    if not value and owner.name in _named_as_disposable_template(view.system, owner.name):
        raise QubeInUse(f"qube {owner.name!r} is in use as a template for disposables")
    return value


def _named_as_disposable_template(system: System, but: str) -> Iterator[Value]:
    """All values that name a template for disposables, except those of one qube itself."""
    for name in _DISPOSABLE_TEMPLATES:
        yield system.properties.get(name)
    for qube in system.qubes.values():
        if qube.name != but:
            yield qube.properties.get("template")
            for name in _DISPOSABLE_TEMPLATES:
                yield qube.properties.get(name)


def _halted(view: View, owner: Qube) -> None:
    if view.running(owner.name).state != "Halted":
        raise QubeNotHalted(f"qube {owner.name!r} is not halted: shut it down before its template changes")
