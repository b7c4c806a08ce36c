"""Small worlds, requests and policies of both languages that meet each other often, for the laws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from hypothesis import strategies as st

from policy_engine import Policy, QubeFacts, Request, Rule, World, format_rule, load
from policy_engine.load import CONFIGURED, RUNTIME
from policy_engine.source import MemorySource
from tests.policy_engine import strategies
from tests.policy_engine.catalogue import carried_out
from tests.policy_engine.literal_dialect import Written

NAMES = ("a", "a_b", "b.c", "dvm", "alpha")
TAGS = ("t", "u", "by-a", "by-a_b", "by-a_x", "by-alpha")
DEFINED = {"@mine": "@tag:by-{source}|{source}", "@two": "@tag:t,!@tag:u", "@not-two": "!@two,@anyvm"}
HEAD = "\n# delegated\n!dialect delegation-1\n" + "".join(
    f"!define {name} ({expression})\n" for name, expression in DEFINED.items()
)


def facts(name: str) -> st.SearchStrategy[QubeFacts]:
    """A qube of this name; its uuid follows from the name."""
    is_dom0 = name == "dom0"
    return st.builds(
        QubeFacts,
        name=st.just(name),
        uuid=st.just(strategies.DOM0_UUID) if is_dom0 else st.sampled_from([f"{name}-id"] * 3 + [None]),
        klass=st.just("AdminVM") if is_dom0 else st.sampled_from(strategies.CLASSES),
        tags=st.frozensets(st.sampled_from(TAGS)),
        template_for_dispvms=st.booleans(),
        default_dispvm=st.sampled_from([None, "gone", "dvm", "a"]),
        power_state=st.sampled_from(["Running", "Halted"]),
        internal=st.sampled_from([None, None, None, "1"]),
        relayvm=st.sampled_from([None, "a", "alpha"]),
        template=st.sampled_from([None, "dvm", "gone"]),
        label_name=st.sampled_from(["", "red", "green"]),
    )


def qubes() -> st.SearchStrategy[list[QubeFacts]]:
    """The qubes of a world; most are there."""
    missing = st.sets(st.sampled_from(["dom0", *NAMES]), max_size=2)
    names = missing.map(lambda gone: [name for name in ("dom0", *NAMES) if name not in gone])
    return names.flatmap(lambda chosen: st.tuples(*map(facts, chosen)).map(list))


worlds: st.SearchStrategy[World] = qubes().map(World.of)

_ATOMS = (
    *["*", "@anyvm", "@tag:t", "@tag:u", "@mine", "@two", "@not-two", "@tag:by-{source}"] * 3,
    *["{source}", "@tag:by-{source}_x", "{source}_b", "@label:red", "@label:green", "@template:dvm"] * 2,
    *("@type:AppVM", "@adminvm", "dom0", "uuid:a-id", "gone", f"uuid:{strategies.DOM0_UUID}", *NAMES),
)
_FOR_TARGETS = (
    *("@default", "@dispvm", "@dispvm:dvm", "@dispvm:uuid:dvm-id", "@dispvm:@tag:t", "@dispvm:{source}") * 2,
)


def _expressions(atoms: Sequence[str]) -> st.SearchStrategy[str]:
    factors = st.builds(str.__add__, st.sampled_from(["", "", "", "!"]), st.sampled_from(atoms))
    both = st.lists(factors, min_size=1, max_size=2).map(",".join)
    return st.lists(both, min_size=1, max_size=2).map("|".join)


_sources = st.one_of(st.sampled_from(["*", "@anyvm", "@tag:t"]), _expressions(_ATOMS))
_targets = st.one_of(st.sampled_from(["*", "@anyvm"]), _expressions((*_ATOMS, *_FOR_TARGETS)))
_others = st.sampled_from(["s.A", "*", "*", "s.*", "s.A|t", "s*|admin.vm.Gone", "policy.Gone"])
_calls = st.sampled_from(
    [
        *("@read", "@execute:local", "@write|@execute", "*|@read:global", "admin.*", "admin.vm.*|policy.*"),
        *("admin.vm.Start", "admin.vm.device.block.Attach|s.A", "admin.vm.Create.AppVM", "policy.List"),
    ]
)
_arguments = st.one_of(
    st.sampled_from(["*", "*", "*", "+", "+x", "+x*", "+x|+y*", "+a*|+x", "+a+dev"]),
    st.sampled_from(["@tag:t", "a|alpha", "@mine", "!@two", "@label:red,!a", "@anyvm|a"]),
)
_places = ("a", "dvm", "uuid:a-id", "gone", "@dispvm", "@dispvm:dvm", "@adminvm", "dom0")
_actions = st.sampled_from(
    ["allow", "allow", "allow", "ask", "ask", "deny", "ask autostart=no", "deny notify=no"]
)
_leading = st.sampled_from(
    [
        *("allow autostart=no", "allow user=root notify=yes", "ask default_target=@dispvm"),
        *(f"{action} target={place}" for action in ("allow", "ask") for place in _places),
    ]
)

Words = tuple[str, str, str, str]
Line = tuple[Words, str]
_fields_of_calls: st.SearchStrategy[Words] = st.tuples(_calls, _arguments, _sources, _targets)
_fields_of_others: st.SearchStrategy[Words] = st.tuples(
    _others, st.sampled_from(["*", "*", "+x", "+x*"]), _sources, _targets
)
fields: st.SearchStrategy[Words] = st.one_of(_fields_of_calls, _fields_of_others)
lines: st.SearchStrategy[Line] = st.one_of(
    st.tuples(fields, _actions), st.tuples(_fields_of_others, st.one_of(_leading, _actions))
)

_framed_lines = lines.map(lambda line: (line[0], line[1].replace("user=root ", "")))


@dataclass(frozen=True)
class Draft:
    """One file: rules of the stock language, or lines of the dialect, perhaps in a frame."""

    stock: tuple[Rule, ...] = ()
    lines: tuple[Line, ...] = ()
    frame: Words | None = None

    def text(self) -> str:
        if self.stock:
            return "".join(f"{format_rule(rule)}\n" for rule in self.stock)
        return HEAD + "".join(f"{' '.join(words)}  {action}\n" for words, action in self.lines)


drafts: st.SearchStrategy[Draft] = st.one_of(
    st.builds(Draft, stock=st.tuples(strategies.rules)),
    st.builds(Draft, lines=st.lists(lines, min_size=1, max_size=3).map(tuple)),
    st.builds(Draft, lines=st.lists(_framed_lines, min_size=1, max_size=3).map(tuple), frame=fields),
)


@dataclass(frozen=True)
class Both:
    """A policy as it was loaded, and as it was written."""

    loaded: Policy
    written: tuple[Written, ...]

    @classmethod
    def of(cls, drafts: Sequence[Draft]) -> Both:
        files = {}
        for number, draft in enumerate(drafts):
            path = f"{CONFIGURED}/{number:02}.policy"
            if draft.frame is None:
                files[path] = draft.text()
            else:
                files[path] = f"{HEAD}{' '.join(draft.frame)} !include include/{number}\n"
                files[f"{CONFIGURED}/include/{number}"] = draft.text()
        contents = {path: text.encode() for path, text in files.items()}
        loaded = load(MemorySource(contents, [RUNTIME]), catalogue=carried_out)
        assert not loaded.warnings
        rules = iter(loaded.rules)
        written = []
        for draft in drafts:
            written += [Written(next(rules)) for _ in draft.stock]
            written += [Written(next(rules), words, draft.frame or (), DEFINED) for words, _ in draft.lines]
        assert next(rules, None) is None
        return cls(loaded, tuple(written))


policies: st.SearchStrategy[Both] = st.lists(drafts, min_size=2, max_size=6).map(Both.of)

CALLERS = ("a", "a_b", "b.c", "alpha", "dom0", "gone", "@adminvm", "uuid:a-id", "*")
CALLS = (
    *("s.A", "s.A+x", "s.B+x1", "t+y", "other", "admin.vm.Gone", "admin.vm.Start", "admin.vm.List+x"),
    *("admin.vm.device.block.Attach+a+dev", "admin.vm.device.block.Attach+alpha", "policy.List"),
    *("admin.vm.Create.AppVM+a", "admin.vm.Create.AppVM+gone", "admin.vm.property.Set+x", "policy.Gone"),
)
TARGETS = (
    *NAMES,
    *("", "dom0", "@adminvm", "uuid:a-id", "uuid:dvm-id", "gone", f"uuid:{strategies.DOM0_UUID}"),
    *("@default", "@dispvm", "@dispvm:dvm", "@dispvm:a", "@dispvm:uuid:dvm-id", "@dispvm:gone", "@tag:t"),
)
REQUESTS = [
    *(Request.of(*words) for words in product(CALLS, CALLERS, TARGETS)),
    *(Request.of(called, "a", target, "alpha") for called in CALLS for target in TARGETS),
]
"""Every call that these worlds and rules can tell apart, and some that they cannot."""

_SHARE = 41
requests: st.SearchStrategy[list[Request]] = st.integers(0, _SHARE - 1).map(
    lambda first: REQUESTS[first::_SHARE]
)
"""An even share of them."""
