"""What the user can choose from when a rule asks (policy language, section 7.3).

The specification adds and removes texts, rule by rule from the last to the first. So the first rule that
speaks of a text settles it, and that is how it is done here: forwards, on bits. The low bits stand for the
qubes of the world, as many above for ``@dispvm:`` and the same qubes, and three more for other texts.
"""

from policy_engine.delegation import DelegationRule
from policy_engine.expression import Expression
from policy_engine.model import (
    DOM0,
    DOM0_TEXTS,
    AdminQube,
    AnyQube,
    Anything,
    Ask,
    Disposable,
    DisposableOf,
    DisposableTagged,
    Named,
    NoTarget,
    Selector,
    Tagged,
    Typed,
)
from policy_engine.plan import Plan, Span
from policy_engine.targets import NO_KEYS, caller_name, frame_keys, is_running, target_keys
from policy_engine.world import DISPOSABLE_BASES, INTERNAL, RUNNING, World, selector_key


def choices(plan: Plan, ask: Ask, source: str, world: World) -> tuple[str, ...]:
    """The targets that the user may choose, sorted by code point; perhaps none."""
    if ask.target is not None:
        text = ask.target.token
        text = DOM0 if text in DOM0_TEXTS else text
        return (text,) if ask.autostart or is_running(text, world) else ()

    texts = _Texts(world, source)
    offered = texts.offered(plan)
    caller = world.find(source)
    itself = 0 if caller is None else 1 << world.number(caller.name)
    shown = texts.qubes & ~world.matching((INTERNAL,))
    qubes = offered
    bases = offered >> len(world) & shown
    if offered & texts.disposable and (own := world.disposable_base(source)) is not None:
        bases |= 1 << world.number(own.name) & shown
    dom0 = bool(offered & texts.absent_dom0)
    if offered & texts.admin_qube:
        qubes |= world.matching(("@adminvm",))
        dom0 = dom0 or DOM0 not in world
    qubes &= shown & ~itself
    if not ask.autostart:
        qubes &= world.matching((RUNNING, "@adminvm"))
        bases = 0

    targets = world.selected(qubes)
    if dom0:
        targets.append(DOM0)
    targets += [f"@dispvm:{name}" for name in world.selected(bases)]
    targets.sort()
    return tuple(targets)


def choices_in_dialect(
    rule: DelegationRule, ask: Ask, plan: Plan, source: str, world: World
) -> tuple[str, ...]:
    """The targets for which a rule of the dialect, this very one, decides, inside its frame."""
    names = (
        choices(plan, ask, source, world)
        if ask.target is not None
        else _decided(rule, ask, plan, source, world)
    )
    if rule.frame is None:
        return names
    frame = rule.frame.target.bound(caller_name(source, world))
    return tuple(name for name in names if frame.matches(frame_keys(name, source, world)))


def _decided(rule: DelegationRule, ask: Ask, plan: Plan, source: str, world: World) -> tuple[str, ...]:
    shown = ~world.matching((INTERNAL,))
    qubes = plan.decided(rule, world) & shown
    if not ask.autostart:
        qubes &= world.matching((RUNNING, "@adminvm"))
    names = [name for name in world.selected(qubes) if name != caller_name(source, world)]
    others = [] if DOM0 in world else [DOM0]
    if ask.autostart:
        others += [f"@dispvm:{base}" for base in world.selected(world.matching((DISPOSABLE_BASES,)) & shown)]
    for target in others:
        keys, framed = target_keys(target, source, world), frame_keys(target, source, world)
        position = plan.earliest(plan.keys & keys, keys, framed, NO_KEYS)
        if position is not None and plan.rules[position] is rule:
            names.append(target)
    return tuple(sorted(names))


def subject(target: str, world: World) -> tuple[str, ...]:
    """The one choice for a call of the Admin API, which dom0 carries out: the qube that it is about, if the
    prepared ``target`` is one. Another one would be another call."""
    if target in DOM0_TEXTS:
        return (DOM0,)
    resident = world.resident(target)
    return () if resident is None else (resident.facts.name,)


def preselected(ask: Ask, targets: tuple[str, ...], source: str, world: World) -> str | None:
    """The choice that ``default_target=`` names; ``None`` if it names none of the choices."""
    if ask.default_target is None:
        return None
    text = ask.default_target.token
    if text in DOM0_TEXTS:
        text = DOM0
    elif text == "@dispvm":
        base = world.disposable_base(source)
        if base is None:
            return None
        text = f"@dispvm:{base.name}"
    return text if text in targets else None


class _Texts:
    """Sets of texts that a question to a source may offer, as bits of one integer."""

    __slots__ = ("absent_dom0", "admin_qube", "disposable", "qubes", "size", "source", "world")

    def __init__(self, world: World, source: str) -> None:
        self.world = world
        self.source = source
        self.size = len(world)
        self.qubes = (1 << self.size) - 1
        self.admin_qube = 1 << 2 * self.size
        self.disposable = self.admin_qube << 1
        # The text "dom0" of a world without dom0; in any other it is the bit of that qube.
        self.absent_dom0 = self.admin_qube << 2

    def offered(self, plan: Plan) -> int:
        """The texts that the first rule to speak of them allows or asks for."""
        offered, unsettled = 0, (1 << 2 * self.size + 3) - 1
        for subject, offers in plan.offers():
            texts = self._expansion(subject) & unsettled
            unsettled ^= texts
            if offers:
                offered |= texts
        return offered

    def _expansion(self, subject: Selector | Span) -> int:
        world, size = self.world, self.size
        match subject:
            case Span(target, frame):
                return self._spoken_of(target) & (-1 if frame is None else self._framed(frame))
            case Named(name):
                facts = world.find(name)
                return 0 if facts is None else 1 << world.number(facts.name)
            case Tagged() | Typed():
                return world.matching((selector_key(subject),))
            case AnyQube():
                return (
                    world.matching(("@anyvm",))
                    | world.matching((DISPOSABLE_BASES,)) << size
                    | self.disposable
                )
            case Anything():
                dom0 = 0 if DOM0 in world else self.absent_dom0
                return self.qubes | world.matching((DISPOSABLE_BASES,)) << size | self.disposable | dom0
            case AdminQube():
                return self.admin_qube
            case Disposable():
                return self.disposable
            case DisposableOf(base):
                facts = world.find(base)
                if facts is None or not facts.template_for_dispvms:
                    return 0
                return 1 << size + world.number(facts.name)
            case DisposableTagged(tag):
                return (world.matching((f"@tag:{tag}",)) & world.matching((DISPOSABLE_BASES,))) << size
            case NoTarget():
                return 0

    def _framed(self, frame: Expression) -> int:
        """The texts that lie in a frame: a disposable counts as its template."""
        qubes = frame.bits(self.world)
        bases = qubes & self.world.matching((DISPOSABLE_BASES,))
        own = self.disposable if frame.matches(frame_keys("@dispvm", self.source, self.world)) else 0
        return qubes | bases << self.size | self._dom0(frame) | own

    def _dom0(self, expression: Expression) -> int:
        """The texts for dom0 besides that of the qube, if the expression may be about it."""
        named = any(atom.text in ("@adminvm", "*") for atom in expression.atoms())
        return self.admin_qube | self.absent_dom0 if named else 0

    def _spoken_of(self, expression: Expression) -> int:
        """All texts that an expression of the dialect may be about: whatever is doubtful is among them."""
        texts = expression.bits(self.world) | self._dom0(expression)
        if any(atom.text.startswith(("@dispvm", "@anyvm", "*")) for atom in expression.atoms()):
            texts |= self.world.matching((DISPOSABLE_BASES,)) << self.size | self.disposable
        return texts
