"""What policy may know of the qubes, as a snapshot that never changes.

Names and uuids are resolved here and nowhere else. A selector of a rule has one key (``selector_key``), a
qube has a set of keys, and the selector matches the qube exactly when its key is in the set. The same keys
name the sets of qubes that a world keeps as bits, bit N standing for the qube ``names[N]``.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from sys import intern
from typing import NamedTuple

from policy_engine.errors import WorldError, quoted
from policy_engine.model import DOM0, DOM0_TEXTS, Selector
from policy_engine.spread import Found, Spread

RUNNING = "@running"
INTERNAL = "@internal"
DISPOSABLE_BASES = "@disposable-bases"
EXISTING = "@existing"
"""Keys of sets that no selector can name: what else ``ask``, ``visible`` and the dialect's ``!`` need to know
of many qubes. ``EXISTING`` are all but dom0."""


@dataclass(frozen=True, slots=True)
class QubeFacts:
    """What policy may know of one qube (policy language, section 4).

    Attributes:
        uuid: without the ``uuid:`` prefix; ``None`` if the qube cannot be named by uuid.
        klass: ``AppVM`` and so on.
        template_for_dispvms: whether disposables may be based on it.
        default_dispvm: the template of the qube's own new disposables; ``None`` if it has none.
        power_state: only ``Running`` counts as running.
        internal: hides the qube from the choices of ``ask`` if it is a text that is not empty.
        guivm: where questions and notifications go; ``None`` for nowhere.
        relayvm, transport_rpc: how a RemoteVM is reached; ``None`` or empty if it is not.
        icon, label: for the agent's window.
        template: name of the direct template; ``None`` if there is none.
        label_name: what the dialect's ``@label:`` names; empty if there is none.
    """

    name: str
    uuid: str | None
    klass: str
    tags: frozenset[str] = frozenset()
    template_for_dispvms: bool = False
    default_dispvm: str | None = None
    power_state: str = "Halted"
    internal: str | None = None
    guivm: str | None = None
    relayvm: str | None = None
    transport_rpc: str | None = None
    icon: str = ""
    label: str = ""
    template: str | None = None
    label_name: str = ""


class Resident(NamedTuple):
    """A qube of a world: its facts, and the keys of all selectors that match it.

    Keys are interned here and in plans: to find one in a set, the texts need not be compared.
    """

    facts: QubeFacts
    keys: frozenset[str]

    @property
    def tokens(self) -> tuple[str, ...]:
        """What names it and no other qube: its name, and what names it by its uuid if that may be."""
        name, uuid = self.facts.name, self.facts.uuid
        return (name,) if uuid is None else (name, f"uuid:{uuid}")

    @property
    def sets(self) -> frozenset[str]:
        """The keys of the sets that it is in."""
        return self.keys.difference(self.tokens)


class World:
    """An immutable snapshot of the qubes, dom0 first, the others by name.

    Derived worlds share what did not change: ``with_qube`` and ``without`` cost microseconds, not a rebuild.

    Attributes:
        names: the names in world order.
        resident: the qube with a name, or with ``uuid:`` and a uuid; ``None`` if there is none.
    """

    __slots__ = ("_numbers", "_residents", "_sets", "names", "resident")

    names: tuple[str, ...]
    resident: Callable[[str], Resident | None]

    def __init__(self, names: tuple[str, ...], residents: Spread[Resident], sets: Spread[int]) -> None:
        self.names = names
        self.resident = Found(residents).__getitem__
        self._residents = residents
        self._sets = sets
        self._numbers: dict[str, int] | None = None

    @classmethod
    def of(cls, qubes: Iterable[QubeFacts]) -> "World":
        """The world of these qubes.

        Raises:
            WorldError: a name or uuid is there twice, or a name could be mistaken for a token.
        """
        residents: dict[str, Resident] = {}
        names: list[str] = []
        for facts in qubes:
            new = _resident(facts)
            for token in _tokens(new, residents.get):
                residents[token] = new
            names.append(facts.name)
        names.sort(key=_order)
        members: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            for key in residents[name].sets:
                members.setdefault(key, []).append(number)
        sets = {key: _bits(numbers, len(names)) for key, numbers in members.items()}
        return cls(tuple(names), Spread(residents), Spread(sets))

    @classmethod
    def from_system_info(cls, document: Mapping[str, object]) -> "World":
        """The world that an ``internal.GetSystemInfo`` document describes.

        Raises:
            WorldError: the document does not have the shape of one.
        """
        domains = document.get("domains")
        if not isinstance(domains, Mapping):
            raise WorldError("domains: expected an object")
        return cls.of(_facts(name, properties) for name, properties in domains.items())

    def find(self, token: str) -> QubeFacts | None:
        """The qube with this name, or with the uuid of ``uuid:...``; ``None`` if there is none."""
        resident = self.resident(token)
        return None if resident is None else resident.facts

    def disposable_base(self, source: str) -> QubeFacts | None:
        """The template of the source's own new disposables; ``None`` if it has none, or one that is gone."""
        caller = self.find(source)
        return None if caller is None or caller.default_dispvm is None else self.find(caller.default_dispvm)

    def with_qube(self, facts: QubeFacts) -> "World":
        """This world with one qube added, or replaced if the name is there.

        Raises:
            WorldError: as ``of``.
        """
        old = self._residents.get(facts.name)
        if old is not None and old.facts == facts:
            return self
        new = _resident(facts)
        gone = () if old is None else old.tokens
        tokens = _tokens(new, lambda token: None if token in gone else self._residents.get(token))
        residents = self._residents.but(dict.fromkeys(gone) | dict.fromkeys(tokens, new))
        if old is None:
            return self._with_new(new, residents)
        bit = 1 << self.number(facts.name)
        turned = (old.keys ^ new.keys).difference(old.tokens, new.tokens)
        sets = self._sets.but({key: (self._sets.get(key) or 0) ^ bit or None for key in turned})
        derived = World(self.names, residents, sets)
        derived._numbers = self._numbers
        return derived

    def _with_new(self, new: Resident, residents: Spread[Resident]) -> "World":
        name = new.facts.name
        number = bisect_left(self.names, _order(name), key=_order)
        below = (1 << number) - 1
        sets = {key: bits & below | bits >> number << number + 1 for key, bits in self._sets.items()}
        for key in new.sets:
            sets[key] = sets.get(key, 0) | 1 << number
        return World((*self.names[:number], name, *self.names[number:]), residents, Spread(sets))

    def without(self, name: str) -> "World":
        """This world without the qube of this name; the same world if there is none."""
        old = self._residents.get(name)
        if old is None or old.facts.name != name:
            return self
        number = self.number(name)
        below = (1 << number) - 1
        left = ((key, bits & below | bits >> number + 1 << number) for key, bits in self._sets.items())
        sets = Spread({key: bits for key, bits in left if bits})
        names = (*self.names[:number], *self.names[number + 1 :])
        return World(names, self._residents.but(dict.fromkeys(old.tokens)), sets)

    def number(self, name: str) -> int:
        """The number of the bit that stands for the qube of this name, which must exist."""
        return bisect_left(self.names, _order(name), key=_order)

    def matching(self, keys: Iterable[str]) -> int:
        """The qubes that a selector with one of these keys matches, as bits."""
        bits = 0
        named: list[int] = []
        for key in keys:
            members = self._sets.get(key)
            if members is not None:
                bits |= members
            elif (resident := self.resident(key)) is not None:
                if self._numbers is None:
                    self._numbers = {name: number for number, name in enumerate(self.names)}
                named.append(self._numbers[resident.facts.name])
        return bits | _bits(named, len(self.names)) if named else bits

    def selected(self, bits: int) -> list[str]:
        """The names of the qubes whose bits are set, in world order."""
        digits = f"{bits:b}".encode().translate(_DIGIT_TO_FLAG)
        return list(compress(self.names, reversed(digits)))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, token: object) -> bool:
        return isinstance(token, str) and self.resident(token) is not None

    def __iter__(self) -> Iterator[QubeFacts]:
        return (resident.facts for name in self.names if (resident := self._residents.get(name)) is not None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, World):
            return NotImplemented
        return self._residents == other._residents and self._sets == other._sets and self.names == other.names

    __hash__ = None  # type: ignore[assignment]  # compared by content, too large to be a key


def selector_key(selector: Selector) -> str:
    """The key that stands for the selector: its token, dom0 in one spelling."""
    text = selector.token
    return "@adminvm" if text in DOM0_TEXTS else text


def disposable_keys(base: QubeFacts) -> list[str]:
    """The keys of ``@dispvm:NAME`` for this template."""
    keys = [f"@dispvm:{base.name}", *disposable_tag_keys(base)]
    return keys if base.uuid is None else [*keys, f"@dispvm:uuid:{base.uuid}"]


def disposable_tag_keys(base: QubeFacts) -> list[str]:
    """The keys that new disposables have by the tags of their template."""
    return [f"@dispvm:@tag:{tag}" for tag in base.tags] if base.template_for_dispvms else []


def _resident(facts: QubeFacts) -> Resident:
    """The keys of section 6 of the policy language, from the qube's side."""
    name, uuid = facts.name, facts.uuid
    if not name or name[0] == "@" or name == "*" or name.startswith("uuid:"):
        raise WorldError(f"{quoted(name)}: expected the name of a qube")
    keys = ["*", f"@type:{facts.klass}", *[f"@tag:{tag}" for tag in facts.tags], name]
    if uuid is not None:
        keys.append(f"uuid:{uuid}")
    if name == DOM0:
        keys.append("@adminvm")
    else:
        keys += ("@anyvm", EXISTING)
    if facts.label_name:
        keys.append(f"@label:{facts.label_name}")
    if facts.template:
        keys.append(f"@template:{facts.template}")
    if facts.power_state == "Running":
        keys.append(RUNNING)
    if facts.internal:
        keys.append(INTERNAL)
    if facts.template_for_dispvms:
        keys.append(DISPOSABLE_BASES)
    return Resident(facts, frozenset(map(intern, keys)))


def _tokens(new: Resident, there: Callable[[str], Resident | None]) -> tuple[str, ...]:
    """The tokens of a new qube, beside those that are ``there``. Raises ``WorldError``."""
    name = new.facts.name
    if there(name) is not None:
        raise WorldError(f"{quoted(name)}: this name is there twice")
    tokens = new.tokens
    for token in tokens[1:]:
        other = there(token)
        if other is not None:
            raise WorldError(f"{quoted(name)}: its uuid is also that of {quoted(other.facts.name)}")
        if token in DOM0_TEXTS and name != DOM0:
            raise WorldError(f"{quoted(name)}: its uuid is that of dom0")
    return tokens


def _order(name: str) -> tuple[bool, str]:
    return name != DOM0, name


_DIGIT_TO_FLAG = bytes.maketrans(b"01", b"\0\1")


def _bits(numbers: list[int], size: int) -> int:
    """An integer with these bits set, each below ``size``. Adding bit by bit would cost ``size`` for each."""
    digits = bytearray(b"0") * size
    for number in numbers:
        digits[-1 - number] = 49  # the digit 1
    return int(digits, 2) if digits else 0


def _facts(name: object, properties: object) -> QubeFacts:
    if not isinstance(name, str) or not isinstance(properties, Mapping):
        raise WorldError(f"domains: {quoted(str(name))}: expected an object")

    def text(key: str) -> str | None:
        value = properties.get(key)
        if value is None or isinstance(value, str):
            return value
        raise WorldError(f"domains: {quoted(name)}: {key}: expected a text, found {quoted(repr(value))}")

    klass, tags = text("type"), properties.get("tags", ())
    if klass is None:
        raise WorldError(f"domains: {quoted(name)}: type: expected a text")
    if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
        raise WorldError(f"domains: {quoted(name)}: tags: expected a list of texts")
    internal = properties.get("internal")
    return QubeFacts(
        name=name,
        uuid=text("uuid"),
        klass=klass,
        tags=frozenset(tags),
        template_for_dispvms=bool(properties.get("template_for_dispvms")),
        default_dispvm=text("default_dispvm"),
        power_state=text("power_state") or "",
        internal=str(internal) if internal else None,
        guivm=text("guivm"),
        relayvm=text("relayvm"),
        transport_rpc=text("transport_rpc"),
        icon=text("icon") or "",
        label=text("label") or "",
        template=text("template"),
        label_name=(text("icon") or "").partition("-")[2],
    )
