"""``graph``: its lines, that nothing breaks out of them, and that it is the literal definition, faster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine import (
    AnyRule,
    Ask,
    Denied,
    Labels,
    Policy,
    QubeFacts,
    Request,
    Rule,
    Scope,
    World,
    decide,
    format_rule,
    graph,
)
from policy_engine.expression import Expression
from tests.policy_engine import strategies, strategies_dialect
from tests.policy_engine.delegated import policy_of as dialect_of
from tests.policy_engine.strategies import policy_of

WORLD = World.of(
    [
        QubeFacts("dom0", None, "AdminVM", label="0x000000"),
        QubeFacts("work", "1", "AppVM", frozenset({"office"}), label="0x0000FF", default_dispvm="dvm"),
        QubeFacts("vault", "2", "AppVM", label="0xcc0000", power_state="Running"),
        QubeFacts("dvm", "3", "AppVM", template_for_dispvms=True, label='evil"];'),
    ]
)
NODES = {
    "dom0": '"dom0" [color = "#000000", penwidth = 3];',
    "work": '"work" [color = "#0000FF", penwidth = 3];',
    "vault": '"vault" [color = "#cc0000", penwidth = 3];',
    "dvm": '"dvm" [penwidth = 3];',
}


def edge(source: str, target: str, label: str, colour: str = "red") -> str:
    return f'"{source}" -> "{target}" [label="{label}" color={colour}];'


def drawn(text: str, **scope: object) -> list[str]:
    """The lines between the brackets, their indentation taken away."""
    policy = policy_of(text) if not text.startswith("!dialect") else dialect_of(text.partition("\n")[2])
    first, *lines, last = graph(policy, WORLD, Scope(**scope))  # type: ignore[arg-type]
    assert (first, last) == ("digraph g {", "}")
    assert all(line.startswith("  ") for line in lines)
    return [line[2:] for line in lines]


def test_nodes_come_before_the_edge_and_everything_once() -> None:
    assert drawn(
        "b.S * work vault allow\na.S +x work vault allow\na.S * work work allow\na.S * work @dispvm allow\n"
    ) == [
        NODES["work"],
        edge("work", "work", "a.S"),
        '"@dispvm" [style = dotted];',
        edge("work", "@dispvm", "a.S"),
        NODES["vault"],
        edge("work", "vault", "a.S"),
        edge("work", "vault", "b.S"),
    ]


@pytest.mark.parametrize(
    ("text", "scope", "lines"),
    [
        pytest.param("s * work vault ask", {}, [NODES["work"], NODES["vault"]], id="ask-left-out"),
        pytest.param(
            "s * work vault ask",
            {"asks": True},
            [NODES["work"], NODES["vault"], edge("work", "vault", "s", "orange")],
            id="ask",
        ),
        pytest.param("s * work vault deny", {"asks": True}, [], id="deny"),
        pytest.param(
            "s * work vault allow autostart=no",
            {},
            [NODES["work"], NODES["vault"], edge("work", "vault", "s")],
            id="runs",
        ),
        pytest.param("s * vault work allow autostart=no", {}, [], id="does-not-run"),
        pytest.param(
            "s * work @anyvm allow target=dom0",
            {},
            [NODES["work"], NODES["dom0"], edge("work", "dom0", "s")],
            id="redirected",
        ),
        pytest.param(
            "s * work @default ask target=gone",
            {"asks": True},
            [NODES["work"], '"gone" [style = dotted];', edge("work", "gone", "s", "orange")],
            id="asked-for-what-is-gone",
        ),
        pytest.param(
            "* * work vault allow",
            {},
            [NODES["work"], NODES["vault"], edge("work", "vault", "*")],
            id="any-service",
        ),
        pytest.param(
            "* * work vault allow\ns * work dom0 deny",
            {"services": ["t"]},
            [NODES["work"], NODES["vault"], edge("work", "vault", "t")],
            id="named-by-no-rule",
        ),
        pytest.param(
            "s +x work vault allow\ns +y work dom0 allow",
            {"services": ["s+y"]},
            [NODES["work"], NODES["dom0"], edge("work", "dom0", "s")],
            id="one-argument",
        ),
        pytest.param("s * work|vault dom0 allow", {"sources": ["vault"]}, [], id="not-a-source"),
        pytest.param(
            "s * @anyvm vault allow",
            {"sources": ["@tag:x"], "targets": {"vault"}},
            ['"@tag:x" [style = dotted];', NODES["vault"], edge("@tag:x", "vault", "s")],
            id="a-token-as-source",
        ),
        pytest.param("s * work * allow target=vault", {"targets": {"dom0"}}, [], id="not-a-target"),
        pytest.param(
            "s * work vault allow",
            {"labels": Labels.NONE},
            [NODES["work"], NODES["vault"], edge("work", "vault", "")],
            id="no-labels",
        ),
        pytest.param(
            "* * work vault ask default_target=vault notify=yes user=root target=vault\ns +x dvm dvm deny",
            {"labels": Labels.RULE},
            [
                NODES["work"],
                NODES["vault"],
                edge("work", "vault", "** ask target=vault default_target=vault user=root", "orange"),
            ],
            id="full-output",
        ),
        pytest.param(
            "s +x work vault allow notify=yes",
            {"labels": Labels.WHOLE_RULE},
            [
                NODES["work"],
                NODES["vault"],
                edge("work", "vault", "s +x work vault allow notify=yes"),
            ],
            id="whole-rule",
        ),
        pytest.param(
            "!dialect delegation-1\nadmin.vm.*|s +x* @tag:office {source}|vault,!work allow",
            {"labels": Labels.RULE, "targets": {"work"}},
            [NODES["work"], edge("work", "work", "admin.vm.*|s+x* allow")],
            id="dialect",
        ),
        pytest.param(
            "!dialect delegation-1\nadmin.vm.Create.AppVM dvm|work work dom0 allow",
            {},
            [NODES["work"], NODES["dom0"], edge("work", "dom0", "admin.vm.Create.AppVM")],
            id="argument-that-names-a-qube",
        ),
    ],
)
def test_draws(text: str, scope: dict[str, object], lines: list[str]) -> None:
    assert drawn(text, **scope) == lines


def test_nothing_breaks_out_of_its_quotes() -> None:
    lines = drawn('s * work @default ask target=x"];y\\ user=\\"\u202e\x7f', labels=Labels.RULE)
    target, user = 'x\\"];y\\\\', '\\\\\\"\\\\u202e\\\\x7f'
    assert lines[1:] == [
        f'"{target}" [style = dotted];',
        edge("work", target, f"s* ask target={target} user={user}", "orange"),
    ]


def literal(policy: Policy, world: World, scope: Scope) -> Iterator[str]:
    """Section 6, call by call, source by source, target by target."""
    bases = [f"@dispvm:{qube.name}" for qube in world if qube.template_for_dispvms]
    calls = {(s, a): qubes for rule in policy.rules for s, a, qubes in calls_of(rule)}
    if scope.services:
        named = {(s.partition("+")[0], s[s.index("+") :] if "+" in s else "*"): None for s in scope.services}
        calls = {(s, a): q for (s, a), q in calls.items() if s in scope.services or s + a in scope.services}
        calls |= named
    told: set[str] = set()

    def once(line: str) -> Iterator[str]:
        if line not in told:
            told.add(line)
            yield line

    yield "digraph g {"
    for service, argument in sorted(calls):
        called = "/" if service == "*" else service.replace("*", "/")
        for source in world.names if scope.sources is None else scope.sources:
            asked = argument[:-1] or "+" if argument.endswith("*") else argument
            if (qubes := calls[service, argument]) is not None:
                spoken_of = (name for name in world.names if matches(qubes, name, source, world))
                asked = f"+{next(spoken_of, '')}"
                if asked == "+":
                    continue
            for token in [*world.names, "@dispvm", *bases, "@default"]:
                decision = decide(policy, Request(called, asked, source, token), world)
                if isinstance(decision, Denied):
                    continue
                action = decision.rule.action
                redirect = getattr(action, "target", None)
                target = token if redirect is None else redirect.token
                if scope.targets is not None and target not in scope.targets:
                    continue
                for node in (source, target):
                    yield from once(f'  "{node}" [{style(node, world)}];')
                if isinstance(action, Ask) and not scope.asks and scope.labels is not Labels.WHOLE_RULE:
                    continue
                colour = "orange" if isinstance(action, Ask) else "red"
                label = service if scope.labels is Labels.SERVICE else format_rule(decision.rule)
                yield from once(f'  "{source}" -> "{target}" [label="{label}" color={colour}];')
    yield "}"


def style(node: str, world: World) -> str:
    return "style = dotted" if world.find(node) is None else "penwidth = 3"


def calls_of(rule: AnyRule) -> Iterator[tuple[str, str, Expression | None]]:
    """Service and argument as they are written, and the qubes that an argument may name."""
    if isinstance(rule, Rule):
        yield rule.service, rule.argument, None
        return
    services: set[str] = set()
    arguments: dict[str, Expression | None] = {}
    for reach in rule.reaches():
        services |= {*reach.services.names, *(f"{glob}*" for glob in reach.services.globs)}
        texts = (*reach.arguments.names, *(f"{glob}*" for glob in reach.arguments.globs))
        arguments |= dict.fromkeys(texts)
        if reach.arguments.qubes is not None:
            arguments[reach.arguments.qubes.text] = reach.arguments.qubes
    yield from ((service, *one) for service in services for one in arguments.items())


def matches(qubes: Expression, name: str, source: str, world: World) -> bool:
    caller, resident = world.find(source), world.resident(name)
    assert resident is not None
    return qubes.bound("" if caller is None else caller.name).matches(resident.keys)


def _scopes(
    sources: Sequence[str], targets: Sequence[str], services: Sequence[str]
) -> st.SearchStrategy[Scope]:
    return st.builds(
        Scope,
        st.one_of(st.none(), st.lists(st.sampled_from(sources), unique=True)),
        st.one_of(st.none(), st.sets(st.sampled_from(targets))),
        st.one_of(st.just(()), st.lists(st.sampled_from(services), unique=True)),
        st.booleans(),
        st.sampled_from([Labels.SERVICE, Labels.WHOLE_RULE]),
    )


@given(
    strategies.policies,
    strategies.worlds(),
    _scopes(strategies.CALLERS, [*strategies.TOKENS, "@dispvm", "@dispvm:dvm"], ["s.A", "s.A+x", "s.B", "t"]),
)
def test_it_is_the_literal_definition(policy: Policy, world: World, scope: Scope) -> None:
    assert list(graph(policy, world, scope)) == list(literal(policy, world, scope))


@given(
    strategies_dialect.policies,
    strategies_dialect.worlds,
    _scopes(strategies_dialect.CALLERS[:-1], [*strategies_dialect.NAMES, "dom0"], ["s.A", "admin.vm.Start"]),
)
def test_it_is_the_literal_definition_in_the_dialect(
    policies: strategies_dialect.Both, world: World, scope: Scope
) -> None:
    policy = policies.loaded
    assert list(graph(policy, world, scope)) == list(literal(policy, world, scope))


def test_a_thousand_qubes_are_a_matter_of_seconds() -> None:
    names = [f"q{number}" for number in range(1_000)]
    world = World.of(
        [QubeFacts("dom0", None, "AdminVM")]
        + [QubeFacts(name, name, "AppVM", template_for_dispvms=True) for name in names]
    )
    text = "".join(
        f"s.N{number} * @anyvm @anyvm ask\ns.N{number} * q1 @dispvm allow\n" for number in range(50)
    )
    text += "".join(f"s.N1 * {name} q1 allow\n" for name in names)
    begun = time.monotonic()
    lines = list(graph(policy_of(text), world, Scope()))
    assert len(lines) == 2 + 2_002
    assert time.monotonic() - begun < 10
