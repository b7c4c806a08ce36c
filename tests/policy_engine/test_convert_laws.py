"""Converting decides nothing anew, at no step and in no world, and is finished by doing it again."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from policy_engine import (
    CONFIGURED,
    LEGACY,
    Conversion,
    Policy,
    Request,
    Rule,
    World,
    decide,
    format_rule,
    load,
)
from tests.policy_engine import strategies
from tests.policy_engine.catalogue import carried_out
from tests.policy_engine.test_convert import COMPAT, DIRECTORIES, Tree, converted, source
from tests.policy_engine.test_sameness import told


def steps(tree: Mapping[str, str], conversion: Conversion) -> list[Tree]:
    """The tree after each file that is written, and after each that gets another name."""
    now = dict(tree)
    trees = []
    for path, content in conversion.files.items():
        now[posixpath.relpath(path, CONFIGURED)] = content.decode()
        trees.append(dict(now))
    for old, new in conversion.aside.items():
        now[f"old/{new}"] = now.pop(f"old/{old}")
        trees.append(dict(now))
    return trees


def policy_of(tree: Mapping[str, str]) -> Policy:
    return load(source(tree), DIRECTORIES, LEGACY, carried_out)


SERVICES = ("qubes.Filecopy", "qubes.OpenURL", "qubes.InputMouse", "s.A", "s.A+x", "s.A+")
CALLS = (*SERVICES, "qubes.Filecopy+x", "other")
NAMES = (
    "30-user",
    "36-more",
    "40-mine",
    "50-config-filecopy",
    "50-config-input",
    "50-config-openurl",
    "90-last",
)
REQUESTS = [
    Request.of(called, caller, target)
    for called in CALLS
    for caller in ("alpha", "beta", "dom0", "gone", "uuid:alpha-id")
    for target in ("alpha", "dvm", "dom0", "@adminvm", "@default", "@dispvm", "@dispvm:dvm", "uuid:beta-id")
]
_SHARE = 8
_some = st.integers(0, _SHARE - 1).map(lambda first: REQUESTS[first::_SHARE])
"""An eighth of them: which of them make a difference is for many examples to find."""


def _line(rule: Rule, service: str) -> str:
    """A rule of today for one of the services, or for all as it was drawn."""
    called, plus, argument = service.partition("+")
    words = format_rule(rule).split(" ")
    head = ["*", "*"] if rule.service == "*" else [called, plus + argument or "*"]
    return " ".join([*head, *words[2:]]) + "\n"


def _old_line(rule: Rule) -> str:
    source, target, *action = format_rule(rule).split(" ")[2:]
    return f"{source} {target} {','.join(action)}\n".replace("@", "$")


_own_lines = st.lists(st.builds(_line, strategies.rules, st.sampled_from(SERVICES)), max_size=3).map("".join)
_plain = st.sampled_from(
    ["$anyvm $anyvm deny\n", "$anyvm $anyvm ask\n", "alpha $anyvm allow\n", "beta dom0 ask\n"]
)
_old_lines = st.lists(st.one_of(st.builds(_old_line, strategies.rules), _plain), min_size=1, max_size=4)
_compat = st.builds("{}{}{}".format, _own_lines, st.just(COMPAT), st.one_of(_own_lines, st.just(COMPAT)))
trees: st.SearchStrategy[Tree] = st.builds(
    lambda today, compat, old: {
        **{f"{name}.policy": text for name, text in today.items()},
        "35-compat.policy": compat,
        **{f"old/{name}": "".join(lines) for name, lines in old.items()},
    },
    st.dictionaries(st.sampled_from(NAMES), _own_lines, max_size=3),
    _compat,
    st.dictionaries(st.sampled_from((*SERVICES, "u2f.Register")), _old_lines, min_size=1, max_size=3),
)


@settings(max_examples=80)
@given(trees, strategies.worlds(), _some)
def test_every_call_is_decided_as_before_at_every_step(
    tree: Tree, world: World, requests: list[Request]
) -> None:
    conversion = converted(tree)
    assert conversion.unlike == []
    wanted = [told(decide(conversion.before, request, world)) for request in requests]
    done = steps(tree, conversion)
    assert policy_of(done[-1]).rules == conversion.after.rules
    for step in done:
        policy = policy_of(step)
        assert [told(decide(policy, request, world)) for request in requests] == wanted


@settings(max_examples=80)
@given(trees, st.integers(0, 9), strategies.worlds(), _some)
def test_what_was_broken_off_is_finished_by_doing_it_again(
    tree: Tree, broken_off: int, world: World, requests: list[Request]
) -> None:
    conversion = converted(tree)
    states = [tree, *steps(tree, conversion)]
    state = states[broken_off % len(states)]
    again = converted(state)
    last = [state, *steps(state, again)][-1]
    nothing = converted(last)
    assert (again.unlike, nothing.files, nothing.aside) == ([], {}, {})
    policy = policy_of(last)
    for request in requests:
        assert told(decide(policy, request, world)) == told(decide(conversion.before, request, world))
