"""Systems made up at random, as consistent as every stored system is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

from hypothesis import strategies as st

from qubesd.model.network import provides_network
from qubesd.model.properties import GLOBALS, Property, Settable, table
from qubesd.model.settings import MAX_VCPUS
from qubesd.model.state import (
    DOM0,
    DOM0_UUID,
    Assignment,
    Klass,
    Label,
    PoolConfig,
    Qube,
    System,
    Value,
    VolumeConfig,
)

# What the store may meet in a text: anything that XML can hold. Values of properties and features that came
# through the API are narrower; those of files from elsewhere need not be.
XML_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cn"), include_characters="\t\n\r"),
    max_size=12,
)
WORD = st.text("abcXYZ019-_", min_size=1, max_size=8)
NAME = st.from_regex(r"[A-Za-z][A-Za-z0-9_.]{0,6}q", fullmatch=True)
ASCII = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, include_characters="\t\n\r"), max_size=12
)

_EXAMPLES: dict[str, st.SearchStrategy[Value]] = {
    "default_user": st.sampled_from(("user", "", "root")),
    "devices_denied": st.sampled_from(("", "b******", "b******m******")),
    "keyboard_layout": st.sampled_from(("us++", "de+nodeadkeys+compose:caps")),
    "kernel": st.sampled_from(("", "6.12")),
    "default_kernel": st.sampled_from(("", "6.12")),
    "ip": st.sampled_from(("10.137.0.77",)),
    "ip6": st.sampled_from(("fd00::7",)),
    "mac": st.sampled_from(("00:16:3e:5e:6c:42",)),
    "vcpus": st.integers(1, MAX_VCPUS),
    "virt_mode": st.sampled_from(("hvm", "pv", "pvh")),
}
_REFERENCES = ("guivm", "audiovm", "relayvm", "clockvm", "updatevm", "default_guivm", "default_audiovm")
"""Those that take any qube; the others have rules that tie them to classes, and are set on purpose below."""


def _value(line: Property, names: list[str]) -> st.SearchStrategy[Value]:
    if line.name in _EXAMPLES:
        return _EXAMPLES[line.name]
    if line.type == "bool":
        return st.booleans()
    if line.type == "int":
        return st.integers(min_value=1, max_value=2**62)
    return st.none() | st.sampled_from(names) if line.type == "vm" else ASCII


def _free(line: Property) -> bool:
    """Whether any value of its type can be drawn."""
    fixed = line.settable is not Settable.YES or line.name in (
        "label",
        "provides_network",
        "template_for_dispvms",
    )
    return not fixed and (line.type != "vm" or line.name in _REFERENCES)


def _some(lines: Mapping[str, Property]) -> st.SearchStrategy[list[Property]]:
    return st.lists(st.sampled_from([line for line in lines.values() if _free(line)]), max_size=5)


@st.composite
def systems(draw: st.DrawFn) -> System:
    """A system of up to six qubes besides dom0."""
    indexes = draw(st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True))
    labels = {
        f"l{index}": Label(f"l{index}", index, draw(st.sampled_from(("0xcc0000", "0x555555"))))
        for index in indexes
    }
    pools = {
        name: PoolConfig(
            name, draw(WORD), draw(st.dictionaries(st.sampled_from(("dir_path", "x")), XML_TEXT))
        )
        for name in draw(st.lists(WORD, max_size=3, unique=True))
    }
    names = draw(st.lists(NAME, max_size=6, unique=True).filter(lambda names: DOM0 not in names))
    system = System(labels, pools, {}, {}, {})
    dom0 = Qube(DOM0, 0, DOM0_UUID, Klass.ADMIN)
    qids = draw(st.lists(st.integers(1, 10000), min_size=len(names), max_size=len(names), unique=True))
    for name, qid, klass in zip(names, qids, draw(_classes(len(names))), strict=True):
        uuid = str(UUID(int=draw(st.integers(0, 2**64 - 1)) << 64 | qid, version=4))
        dispid = draw(st.integers(0, 9999)) if klass is Klass.DISPOSABLE else None
        system = system.with_qube(Qube(name, qid, uuid, klass, dispid=dispid))
    system = system.with_qube(dom0)
    everybody = list(system.qubes)
    for qube in list(system.qubes.values()):
        system = system.with_qube(draw(_furnished(qube, system, everybody)))
    providers = [None, *(qube.name for qube in system.qubes.values() if provides_network(qube))]
    for line in draw(_some(GLOBALS)):
        system = system.with_property(line.name, draw(_value(line, everybody)))
    # Only the end of a chain gives network here, so that no loops can be drawn.
    system = system.with_property("default_netvm", draw(st.sampled_from(providers)))
    return system


def _classes(count: int) -> st.SearchStrategy[list[Klass]]:
    """Classes such that everything with a template finds one: a template and an AppVM come first."""
    first = [Klass.TEMPLATE, Klass.APP]
    free: list[Klass] = [klass for klass in Klass if klass is not Klass.ADMIN]
    rest = st.lists(st.sampled_from(free), min_size=count, max_size=count)
    return rest.map(lambda drawn: (first + drawn)[:count])


@st.composite
def _furnished(draw: st.DrawFn, qube: Qube, system: System, everybody: list[str]) -> Qube:
    properties: dict[str, Value] = {"label": draw(st.sampled_from(list(system.labels)))}
    of_class = {klass: [one.name for one in system.qubes.values() if one.klass is klass] for klass in Klass}
    lines = table(qube.klass)
    if qube.klass is Klass.APP:
        properties["template"] = draw(st.sampled_from(of_class[Klass.TEMPLATE]))
        properties["template_for_dispvms"] = True
    if qube.klass is Klass.DISPOSABLE:
        properties["template"] = draw(st.sampled_from(of_class[Klass.APP]))
    if "default_dispvm" in lines and draw(st.booleans()):
        properties["default_dispvm"] = draw(st.sampled_from([None, *of_class[Klass.APP]]))
    if qube.klass is Klass.STANDALONE:
        properties |= {"provides_network": True, "netvm": None}
    for line in draw(_some(lines)):
        properties[line.name] = draw(_value(line, everybody))
    if draw(st.booleans()):
        properties["of_a_later_version"] = draw(XML_TEXT)
    has_volumes = qube.klass not in (Klass.ADMIN, Klass.REMOTE)
    volumes = draw(st.lists(_volumes(), max_size=3)) if has_volumes else []
    assignments = draw(st.lists(_assignments(everybody), max_size=3, unique_by=_device))
    return replace(
        qube,
        properties=properties,
        features=draw(st.dictionaries(XML_TEXT.map("f".__add__), XML_TEXT, max_size=3)),
        tags=frozenset(draw(st.lists(WORD, max_size=3))),
        assignments=tuple(sorted(assignments, key=lambda assignment: assignment.devclass)),
        volumes={volume.name: volume for volume in volumes},
    )


def _device(assignment: Assignment) -> tuple[str, ...]:
    """What is assigned, which nobody can have twice."""
    return assignment.devclass, assignment.backend, assignment.port, assignment.identity


def _assignments(everybody: list[str]) -> st.SearchStrategy[Assignment]:
    return st.builds(
        Assignment,
        devclass=st.sampled_from(("block", "pci", "usb")),
        backend=st.sampled_from(everybody),
        port=WORD,
        identity=XML_TEXT,
        mode=st.sampled_from(("required", "auto-attach", "ask-to-attach")),
        options=st.dictionaries(XML_TEXT, XML_TEXT, max_size=2),
    )


def _volumes() -> st.SearchStrategy[VolumeConfig]:
    return st.builds(
        VolumeConfig,
        name=st.sampled_from(("root", "private", "volatile", "kernel")),
        pool=WORD,
        vid=XML_TEXT,
        revisions_to_keep=st.integers(-1, 5),
        rw=st.booleans(),
        save_on_stop=st.booleans(),
        snap_on_start=st.booleans(),
        size=st.integers(0, 2**60),
        source=st.none() | XML_TEXT,
        ephemeral=st.none() | st.booleans(),
    )
