"""What the user can choose from when a rule asks (policy language, section 7.3).

The specification adds and removes texts, rule by rule from the last to the first. So the first rule that
speaks of a text settles it, and that is how it is done here: forwards, on bits. The low bits stand for the
qubes of the world, as many above for ``@dispvm:`` and the same qubes, and three more for other texts.
"""

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
from policy_engine.policy import Plan
from policy_engine.world import DISPOSABLE_BASES, INTERNAL, RUNNING, World, selector_key


def choices(plan: Plan, ask: Ask, source: str, world: World) -> tuple[str, ...]:
    """The targets that the user may choose, sorted by code point; perhaps none."""
    if ask.target is not None:
        text = ask.target.token
        text = DOM0 if text in DOM0_TEXTS else text
        return (text,) if ask.autostart or is_running(text, world) else ()

    texts = _Texts(world)
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


def is_running(target: str, world: World) -> bool:
    """Whether a call to the target starts nothing: it is dom0 or a qube that runs, never a new disposable."""
    if target in DOM0_TEXTS:
        return True
    facts = world.find(target)
    return facts is not None and facts.power_state == "Running"


class _Texts:
    """Sets of texts that a question may offer, as bits of one integer."""

    __slots__ = ("absent_dom0", "admin_qube", "disposable", "qubes", "size", "world")

    def __init__(self, world: World) -> None:
        self.world = world
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

    def _expansion(self, subject: Selector) -> int:
        world, size = self.world, self.size
        match subject:
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
