"""Small worlds, rules and requests that meet each other often, for the laws."""

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
    """The qubes of a world, mostly with a dom0."""
    names = st.lists(st.sampled_from(["dom0", *NAMES]), unique=True, max_size=7)
    return names.flatmap(lambda chosen: st.tuples(*map(facts, chosen)).map(list))


def worlds() -> st.SearchStrategy[World]:
    return qubes().map(World.of)


_places = st.sampled_from(TOKENS).map(lambda text: AdminQube() if text == "@adminvm" else Named(text))
_bases = st.sampled_from([*NAMES, "gone", "uuid:dvm-id"]).map(DisposableOf)
_sets = st.one_of(
    st.just(Anything()),
    st.just(AnyQube()),
    st.sampled_from(TAGS).map(Tagged),
    st.sampled_from([*CLASSES, "AdminVM"]).map(Typed),
)
_tagged_bases = st.sampled_from(TAGS).map(DisposableTagged)

sources: st.SearchStrategy[Selector] = st.one_of(_sets, _sets, _places, _bases, _tagged_bases)
targets: st.SearchStrategy[Selector] = st.one_of(
    _sets, _sets, _places, _bases, _tagged_bases, st.just(NoTarget()), st.just(Disposable())
)
redirects = st.one_of(st.none(), st.none(), _places, _bases, st.just(Disposable()))
_users = st.sampled_from([None, None, "", "root", "a=b", "#"])

actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Deny, st.booleans()),
    st.builds(Allow, redirects, _users, st.booleans(), st.booleans()),
    st.builds(Ask, redirects, redirects, _users, st.booleans(), st.booleans()),
)

_heads = st.sampled_from([("*", "*"), ("s.A", "*"), ("s.A", "*"), ("s.A", "+"), ("s.A", "+x"), ("s.B", "*")])


def _rule(head: tuple[str, str], source: Selector, target: Selector, action: Action) -> Rule:
    if isinstance(target, NoTarget) and isinstance(action, Allow) and action.target is None:
        action = Allow(Named("alpha"))
    return Rule(*head, source, target, action)


rules: st.SearchStrategy[Rule] = st.builds(_rule, _heads, sources, targets, actions)


def policies(max_size: int = 8) -> st.SearchStrategy[Policy]:
    return st.lists(rules, max_size=max_size).map(Policy)


callers = st.sampled_from(
    ["alpha", "beta", "Gamma", "dom0", "gone", "@adminvm", "uuid:alpha-id", "@tag:t", "*"]
)
called = st.one_of(
    st.sampled_from(
        ["", "@default", "@dispvm", "@dispvm:", "@dispvm:@tag:t", "@anyvm", "@tag:t", "*", "@", "@type:AppVM"]
    ),
    st.sampled_from(TOKENS),
    st.sampled_from(TOKENS),
    st.sampled_from(TOKENS).map(lambda text: f"@dispvm:{text}"),
)
requests: st.SearchStrategy[Request] = st.builds(
    Request.of,
    st.sampled_from(["s.A", "s.A+x", "s.A+", "s.A+y+z", "s.B", "other"]),
    callers,
    called,
    st.sampled_from([None, None, None, "", "alpha", "beta", "gone", "@adminvm"]),
)


def policy_of(text: str) -> Policy:
    """The policy of one file with this text."""
    return load(MemorySource({f"{CONFIGURED}/30-test.policy": text.encode()}, [RUNTIME]))


def kind(answer: object) -> str:
    """A denial's kind, or the name of the other answers' class."""
    return answer.kind if isinstance(answer, Denied) else type(answer).__name__.lower()
