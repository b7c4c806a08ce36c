"""What policy may know of the qubes, as a snapshot that never changes.

Names and uuids are resolved here and nowhere else. A selector of a rule has one key (``selector_key``), a
qube has a set of keys, and the selector matches the qube exactly when its key is in the set. The same keys
name the sets of qubes that a world keeps as bits, bit N standing for the qube ``names[N]``.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

from policy_engine.errors import WorldError, quoted
from policy_engine.model import DOM0, DOM0_TEXTS, Selector

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
    """A qube of a world: its facts, the keys of all selectors that match it, and the sets that it is in."""

    facts: QubeFacts
    keys: frozenset[str]
    sets: frozenset[str]


class World:
    """An immutable snapshot of the qubes, dom0 first, the others by name.

    Derived worlds share what did not change: ``with_qube`` and ``without`` cost microseconds, not a rebuild.

    Attributes:
        names: the names in world order.
        residents: every qube under its name and under ``uuid:`` and its uuid. Not to be written to.
    """

    __slots__ = ("_numbers", "_sets", "names", "residents")

    names: tuple[str, ...]
    residents: dict[str, Resident]

    def __init__(self, names: tuple[str, ...], residents: dict[str, Resident], sets: dict[str, int]) -> None:
        self.names = names
        self.residents = residents
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
            _settle_in(residents, _resident(facts))
            names.append(facts.name)
        names.sort(key=_order)
        members: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            for key in residents[name].sets:
                members.setdefault(key, []).append(number)
        sets = {key: _bits(numbers, len(names)) for key, numbers in members.items()}
        return cls(tuple(names), residents, sets)

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
        resident = self.residents.get(token)
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
        old = self.residents.get(facts.name)
        if old is None:
            return self._with_new(_resident(facts))
        if old.facts == facts:
            return self
        new = _resident(facts)
        residents = self.residents.copy()
        _move_out(residents, old)
        _settle_in(residents, new)
        sets = self._sets.copy()
        bit = 1 << self.number(facts.name)
        for key in old.sets - new.sets:
            sets[key] &= ~bit
            if not sets[key]:
                del sets[key]
        for key in new.sets - old.sets:
            sets[key] = sets.get(key, 0) | bit
        derived = World(self.names, residents, sets)
        derived._numbers = self._numbers
        return derived

    def _with_new(self, new: Resident) -> "World":
        name = new.facts.name
        residents = self.residents.copy()
        _settle_in(residents, new)
        number = bisect_left(self.names, _order(name), key=_order)
        below = (1 << number) - 1
        sets = {key: bits & below | bits >> number << number + 1 for key, bits in self._sets.items()}
        for key in new.sets:
            sets[key] = sets.get(key, 0) | 1 << number
        return World((*self.names[:number], name, *self.names[number:]), residents, sets)

    def without(self, name: str) -> "World":
        """This world without the qube of this name; the same world if there is none."""
        old = self.residents.get(name)
        if old is None or old.facts.name != name:
            return self
        residents = self.residents.copy()
        _move_out(residents, old)
        number = self.number(name)
        below = (1 << number) - 1
        left = ((key, bits & below | bits >> number + 1 << number) for key, bits in self._sets.items())
        sets = {key: bits for key, bits in left if bits}
        return World((*self.names[:number], *self.names[number + 1 :]), residents, sets)

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
            elif (resident := self.residents.get(key)) is not None:
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
        return token in self.residents

    def __iter__(self) -> Iterator[QubeFacts]:
        return (self.residents[name].facts for name in self.names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, World):
            return NotImplemented
        return self.residents == other.residents and self._sets == other._sets and self.names == other.names

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
    sets = {"*", f"@type:{facts.klass}"}
    sets.update([f"@tag:{tag}" for tag in facts.tags])
    if name == DOM0:
        sets.add("@adminvm")
    else:
        sets.update(("@anyvm", EXISTING))
    if facts.label_name:
        sets.add(f"@label:{facts.label_name}")
    if facts.template:
        sets.add(f"@template:{facts.template}")
    if facts.power_state == "Running":
        sets.add(RUNNING)
    if facts.internal:
        sets.add(INTERNAL)
    if facts.template_for_dispvms:
        sets.add(DISPOSABLE_BASES)
    keys = {*sets, name} if uuid is None else {*sets, name, f"uuid:{uuid}"}
    return Resident(facts, frozenset(keys), frozenset(sets))


def _settle_in(residents: dict[str, Resident], new: Resident) -> None:
    name, uuid = new.facts.name, new.facts.uuid
    if name in residents:
        raise WorldError(f"{quoted(name)}: this name is there twice")
    residents[name] = new
    if uuid is None:
        return
    token = f"uuid:{uuid}"
    if token in residents:
        raise WorldError(f"{quoted(name)}: its uuid is also that of {quoted(residents[token].facts.name)}")
    if token in DOM0_TEXTS and name != DOM0:
        raise WorldError(f"{quoted(name)}: its uuid is that of dom0")
    residents[token] = new


def _move_out(residents: dict[str, Resident], old: Resident) -> None:
    del residents[old.facts.name]
    if old.facts.uuid is not None:
        del residents[f"uuid:{old.facts.uuid}"]


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
