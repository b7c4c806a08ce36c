"""Small worlds, rules and requests that meet each other often, for the laws."""

from collections.abc import Iterator
from itertools import product

from hypothesis import strategies as st

from policy_engine import (
    Action,
    Allow,
    Ask,
    Denied,
    Deny,
    MemorySource,
    Policy,
    QubeFacts,
    Request,
    Rule,
    Selector,
    World,
    load,
)
from policy_engine.load import CONFIGURED, RUNTIME
from policy_engine.model import (
    AdminQube,
    AnyQube,
    Anything,
    Disposable,
    DisposableOf,
    DisposableTagged,
    Named,
    NoTarget,
    Redirect,
    Tagged,
    Typed,
)

DOM0_UUID = "00000000-0000-0000-0000-000000000000"
NAMES = ("alpha", "beta", "Gamma", "dvm", "0x", "running")
TAGS = ("t", "u")
CLASSES = ("AppVM", "TemplateVM", "DispVM", "RemoteVM")
TOKENS = ("dom0", "@adminvm", f"uuid:{DOM0_UUID}", "gone", *NAMES, *(f"uuid:{name}-id" for name in NAMES))


def facts(name: str) -> st.SearchStrategy[QubeFacts]:
    """A qube of this name; its uuid follows from the name, so that tokens for it are easily drawn."""
    return st.builds(
        QubeFacts,
        name=st.just(name),
        uuid=st.just(DOM0_UUID) if name == "dom0" else st.sampled_from([f"{name}-id"] * 3 + [None]),
        klass=st.just("AdminVM") if name == "dom0" else st.sampled_from(CLASSES),
        tags=st.frozensets(st.sampled_from(TAGS)),
        template_for_dispvms=st.booleans(),
        default_dispvm=st.sampled_from([None, "gone", *NAMES]),
        power_state=st.sampled_from(["Running", "Halted", "Paused"]),
        internal=st.sampled_from([None, None, "", "0", "1"]),
        guivm=st.sampled_from([None, "dom0"]),
        relayvm=st.sampled_from([None, "alpha", "beta", "gone"]),
        transport_rpc=st.sampled_from([None, "", "qubesair.SSHProxy"]),
    )


def qubes() -> st.SearchStrategy[list[QubeFacts]]:
    """The qubes of a world; most are there."""
    missing = st.sets(st.sampled_from(["dom0", *NAMES]), max_size=3)
    names = missing.map(lambda gone: [name for name in ("dom0", *NAMES) if name not in gone])
    return names.flatmap(lambda chosen: st.tuples(*map(facts, chosen)).map(list))


def worlds() -> st.SearchStrategy[World]:
    return qubes().map(World.of)


_places = [AdminQube(), *(Named(text) for text in TOKENS if text != "@adminvm")]
_bases = [DisposableOf(name) for name in ("dvm", "0x", "alpha", "gone", "uuid:dvm-id")]
_sets = [Anything(), AnyQube(), *map(Tagged, TAGS), *map(Typed, (*CLASSES, "AdminVM"))]
_tagged_bases = list(map(DisposableTagged, TAGS))

# A drawn element is equally likely, so what seldom matches is outnumbered.
sources: st.SearchStrategy[Selector] = st.sampled_from(
    [*[Anything(), AnyQube(), Tagged("t")] * 12, *_sets, *_places, *_bases[:1], *_tagged_bases[:1]]
)
targets: st.SearchStrategy[Selector] = st.sampled_from(
    [*_sets * 3, *_places, *_bases, *_tagged_bases * 2, *[NoTarget(), Disposable()] * 3]
)
_redirects: list[Redirect | None] = [None] * 24
redirects = st.sampled_from([*_redirects, *_places, *_bases, Disposable(), Disposable()])
_users = st.sampled_from([None, None, "", "root", "a=b", "#"])

actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Deny, st.booleans()),
    st.builds(Allow, redirects, _users, st.booleans(), st.booleans()),
    st.builds(Ask, redirects, redirects, _users, st.booleans(), st.booleans()),
)

_heads = st.sampled_from([*[("s.A", "*"), ("*", "*")] * 4, ("s.A", "+"), ("s.A", "+x"), ("s.B", "*")])


def _rule(head: tuple[str, str], source: Selector, target: Selector, action: Action) -> Rule:
    if isinstance(target, NoTarget) and isinstance(action, Allow) and action.target is None:
        action = Allow(Named("alpha"))
    return Rule(*head, source, target, action)


rules: st.SearchStrategy[Rule] = st.builds(_rule, _heads, sources, targets, actions)


policies: st.SearchStrategy[Policy] = st.lists(rules, min_size=4, max_size=9).map(Policy)


CALLERS = ("alpha", "beta", "Gamma", "dom0", "gone", "@adminvm", "uuid:alpha-id", "@tag:t", "*")
KEYWORDS = ("", "@default", "@dispvm", "@adminvm", "@dispvm:dvm", "@dispvm:0x", "@dispvm:uuid:dvm-id")
REFUSED = ("@dispvm:", "@dispvm:@tag:t", "@dispvm:gone", "@anyvm", "@tag:t", "*", "@", "@type:AppVM")


def every_request() -> Iterator[Request]:
    """Every call that these worlds and rules can tell apart, and some that they cannot."""
    for called, caller, target in product(("s.A", "s.A+x", "other"), CALLERS, {*TOKENS, *KEYWORDS}):
        yield Request.of(called, caller, target)
    for target in REFUSED:
        yield Request.of("s.A+y+z", "alpha", target)
    for remote, relay in product((*NAMES, "gone", "@adminvm", ""), ("alpha", "beta", "dom0")):
        yield Request.of("s.B", relay, "Gamma", remote)


def policy_of(text: str) -> Policy:
    """The policy of one file with this text."""
    return load(MemorySource({f"{CONFIGURED}/30-test.policy": text.encode()}, [RUNTIME]))


def kind(answer: object) -> str:
    """A denial's kind, or the name of the other answers' class."""
    return answer.kind if isinstance(answer, Denied) else type(answer).__name__.lower()
