"""Calls drawn from the method table: a method, and a destination, argument and payload that may fit it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from qubesd.api.method import Destination, Method, Need, Scope
from qubesd.api.values import SINGLE, Kind, Names, Values
from qubesd.model.devices import MODES
from qubesd.model.properties import GLOBALS, table
from qubesd.model.state import Klass
from tools.interfering.words import LAST_TOKEN, Words

_MISFIT = 0.04
"""The share of arguments and payloads that the contract of the method forbids."""

_OFTEN = ("admin.vm.Create.AppVM", "admin.vm.CreateDisposable", "admin.vm.List", "admin.vm.Remove")
_VOLUMES = ("private", "private", "private", "root", "volatile", "kernel", "none")
_FEATURES = (
    "plain",
    "internal",
    "qrexec",
    "preload-dispvm-max",
    "tag-created-vm-with",
    "boot-mode.active",
    "gui",
)
_NUMBERS = (
    "0",
    "1",
    "2",
    "3",
    "256",
    "400",
    "400",
    "1024",
    "4096",
    "1073741824",
    "2147483648",
    "3221225472",
    "-1",
)
_TEXTS = (
    "",
    "1",
    "True",
    "False",
    "word",
    "root",
    "10.1.2.3",
    "00:16:3e:11:22:33",
    "hvm",
    "pvh",
    "us",
    "50%",
)
_CODES = ("u030101", "b******m******", "b*", "all", "")
_RULES = (
    "action=drop",
    "action=accept",
    "action=accept dst4=10.1.0.0/16",
    "action=drop comment=x",
    "action=maybe",
)
_NOISE = (b"x", b"\xff\x00", b"name=", b"a=b c=d", b"'", b"0" * 70, b"%d")
_OF_QUBES = {name: line for klass in Klass for name, line in table(klass).items()}


def weight(method: Method) -> float:
    """How often a method is drawn, compared with others: classes of devices are many, removals end things."""
    if any(f".device.{devclass}." in method.name for devclass in ("mic", "pci", "usb")):
        return 0.25
    if "CreateInPool" in method.name or "RemoteVM" in method.name:
        return 0.5
    if (
        method.scope is Scope.GLOBAL
        and method.name not in _OFTEN
        and not method.name.startswith("admin.pool.volume.")
    ):
        return 0.3
    return {
        "admin.vm.Remove": 0.3,
        "admin.vm.property.Set": 4.0,
        "admin.vm.Start": 2.0,
        "admin.vm.CreateDisposable": 0.5,
    }.get(method.name, 1.0)


class Mix:
    """Methods that are drawn from, each as often as its weight says."""

    def __init__(self, methods: Iterable[Method]) -> None:
        self._methods = tuple(methods)
        self._weights = tuple(map(weight, self._methods))

    def draw(self, random: Random, words: Words) -> tuple[str, str, str, bytes]:
        """Service, argument, target and payload of one call."""
        (method,) = random.choices(self._methods, self._weights)
        return fit(random, words, method)


def fit(random: Random, words: Words, method: Method) -> tuple[str, str, str, bytes]:
    """One call of this method."""
    to_dom0 = method.destination is Destination.DOM0 or method.name == "admin.vm.CreateDisposable"
    stray = random.random() < (0.1 if to_dom0 else 0.05) and words.fresh > 0
    target = "dom0" if to_dom0 is not stray else words.target(random)
    argument = _argument(random, words, method) if _given(random, method.argument) else ""
    payload = _payload(random, words, method, argument) if _given(random, method.payload) else b""
    return method.name, argument, target, payload


def _given(random: Random, need: Need) -> bool:
    return random.random() < {Need.FORBIDDEN: _MISFIT, Need.OPTIONAL: 0.6, Need.REQUIRED: 1 - _MISFIT}[need]


def _argument(random: Random, words: Words, method: Method) -> str:
    name = method.name
    if method.names is Names.QUBE and method.creates:
        return random.choice(words.templates)
    if ".device." in name and ".denied." not in name:
        port = random.choice(("sda", "sda", "sda", "sdb", "1-1", "mic", "00_1f.0"))
        if name.endswith("Available"):
            return port
        return f"{words.name(random)}+{port}" + random.choice(("", "", ":*", ":disk"))
    if name.startswith("admin.property."):
        return random.choice((*GLOBALS, "none"))
    vocabulary: Sequence[str] = next(
        (
            vocabulary
            for part, vocabulary in (
                (".property.", (*_OF_QUBES, "none")),
                (".feature.", _FEATURES),
                (".tag.", words.tags),
                ("admin.vm.volume.", _VOLUMES),
                ("admin.pool.Add", ("file", "file", "lvm_thin", "none")),
                ("admin.pool.volume.", words.volume_pools),
                ("admin.pool.", words.pools),
                ("admin.label.", words.labels),
                (".Shutdown", ("force", "wait", "force+wait", "later")),
                (".CreateDisposable", ("preload", words.name(random))),
            )
            if part in name
        ),
        (),
    )
    return random.choice(vocabulary) if vocabulary else words.name(random)


def _payload(random: Random, words: Words, method: Method, argument: str) -> bytes:
    if random.random() < words.fresh:
        return random.choice(_NOISE)
    name = method.name
    if ".volume.CloneTo" in name:
        last = LAST_TOKEN
        return (f"{_vid(random, words)} {last}" if ".pool." in name else last).encode("ascii")
    if name == "admin.pool.volume.Import":
        return _vid(random, words).encode("ascii") + b"\n" + b"data" * random.randrange(4)
    if ".firewall." in name:
        return "\n".join(random.sample(_RULES, random.randint(1, 2))).encode("ascii")
    keys = method.values.form(argument) if isinstance(method.values, Values) else None
    if not keys:
        return words.name(random).encode("ascii")
    values = {key: _value(random, words, method, key, kind, argument) for key, kind in keys.items()}
    return _written(random, method, values).encode("ascii")


def _written(random: Random, method: Method, values: Mapping[str, str]) -> str:
    """The values in the form that the method's parser reads."""
    if SINGLE in values:
        return values[SINGLE]
    if "vid" in values:
        return " ".join(values.values())
    needed = {key for key in values if key in ("name", "label", "mode", "dir_path")}
    given = {key: value for key, value in values.items() if key in needed or random.random() < 0.15}
    if ".device." in method.name:
        return " ".join(f"{key}='{value}'" for key, value in given.items())
    return ("\n" if ".pool." in method.name else " ").join(f"{key}={value}" for key, value in given.items())


def _value(random: Random, words: Words, method: Method, key: str, kind: Kind, argument: str) -> str:
    if ".property." in method.name:
        return _of_property(random, words, method, argument)
    if kind is Kind.QUBE:
        return words.name(random)
    if kind in (Kind.NUMBER, Kind.MEBIBYTES):
        return random.choice(_NUMBERS)
    if key == "vid":
        return _vid(random, words)
    if key.startswith("pool"):
        return random.choice((*words.pools, "varlibqubes"))
    if key == "name":
        return random.choice(words.pools if ".pool." in method.name else words.new)
    if key == "dir_path":
        return "{root}/" + random.choice(words.pools)
    if key == "label":
        return random.choice(words.labels)
    if key == "mode" or method.name.endswith("Set.assignment"):
        return random.choice((*MODES, "manual"))
    if ".denied." in method.name:
        return random.choice(_CODES)
    if method.name == "admin.label.Create":
        return "0x123457"
    return random.choice((*_TEXTS, *_NUMBERS, words.name(random)))


def _of_property(random: Random, words: Words, method: Method, argument: str) -> str:
    properties = GLOBALS if method.name.startswith("admin.property.") else _OF_QUBES
    line = properties.get(argument)
    match line.type if line else "":
        case "vm":
            return random.choice((words.name(random), words.name(random), "net", ""))
        case "label":
            return random.choice(words.labels)
        case "int":
            return random.choice(_NUMBERS)
        case "bool":
            return random.choice(("True", "False"))
        case _:
            return random.choice((*_TEXTS, *words.tags))


def _vid(random: Random, words: Words) -> str:
    name = words.name(random)
    folder = "vm-templates" if name in ("tmpl", "secret-2") else "appvms"
    return f"{folder}/{name}/{random.choice(_VOLUMES)}"
