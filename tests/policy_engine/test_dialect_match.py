"""Whom the expressions of the dialect match."""

from __future__ import annotations

import pytest

from policy_engine import QubeFacts, Request, World, decide, visible
from tests.policy_engine.delegated import policy_of
from tests.policy_engine.strategies import kind

WORLD = World.of(
    [
        QubeFacts("dom0", "00000000-0000-0000-0000-000000000000", "AdminVM"),
        QubeFacts("a", "a-id", "AppVM", frozenset({"t"}), template="tpl", label_name="red"),
        QubeFacts("a_b", "ab-id", "AppVM", frozenset({"x-a_b", "x-a"})),
        QubeFacts("b.c", "bc-id", "AppVM"),
        QubeFacts("tpl", "tpl-id", "TemplateVM", template_for_dispvms=True, label_name="black"),
    ]
)


@pytest.mark.parametrize(
    ("target", "source", "reached"),
    [
        pytest.param("!@tag:t", "a", "a_b b.c tpl", id="not"),
        pytest.param("!gone", "a", "a a_b b.c tpl", id="not-what-does-not-exist"),
        pytest.param("!*", "a", "", id="not-everything"),
        pytest.param("!a,!@type:TemplateVM", "a", "a_b b.c", id="neither"),
        pytest.param("!{source}", "b.c", "a a_b tpl", id="not-the-caller"),
        pytest.param("{source}", "b.c", "b.c", id="the-caller"),
        pytest.param("{source}_b", "a", "a_b", id="a-name-made-of-the-caller"),
        pytest.param("@tag:x-{source}", "a", "a_b", id="tag-of-the-caller"),
        pytest.param("@tag:x-{source}_b", "a", "a_b", id="tag-with-what-follows"),
        pytest.param("@tag:x-{source}_b", "a_b", "", id="separator-in-the-name"),
        pytest.param("{source}.c", "b", "", id="a-caller-that-does-not-exist"),
        pytest.param("{source}.c", "b.c", "", id="dot-in-the-name"),
        pytest.param("{source}0", "dom", "", id="never-dom0"),
        pytest.param("{source}", "dom0", "", id="dom0-is-matched-by-naming-it"),
        pytest.param("@label:red|@template:tpl", "b.c", "a", id="label-and-template"),
        pytest.param("@template:uuid:tpl-id", "b.c", "", id="templates-by-name-only"),
        pytest.param("uuid:bc-id", "uuid:a-id", "b.c", id="uuid"),
        pytest.param("@tag:x-{source}", "uuid:a-id", "a_b", id="caller-by-uuid"),
        pytest.param("*", "gone", "dom0 a a_b b.c tpl", id="everything"),
        pytest.param("@anyvm,!@tag:t|dom0", "gone", "dom0 a_b b.c tpl", id="dom0-by-name"),
    ],
)
def test_whom_an_expression_matches(target: str, source: str, reached: str) -> None:
    world = WORLD.with_qube(QubeFacts("dom", "dom-id", "AppVM")) if source == "dom" else WORLD
    assert visible(policy_of(f"s * * {target} allow\n"), world, source, "s") == reached.split()


@pytest.mark.parametrize(
    ("target", "matched"),
    [
        pytest.param("*", "dom0 @adminvm @default @dispvm @dispvm:tpl", id="everything"),
        pytest.param("@anyvm", "@default @dispvm @dispvm:tpl", id="all-but-dom0"),
        pytest.param("dom0", "dom0 @adminvm", id="dom0"),
        pytest.param("@adminvm|@default", "dom0 @adminvm @default", id="named"),
        pytest.param("@dispvm", "@dispvm", id="own-disposable"),
        pytest.param("@dispvm:tpl", "@dispvm @dispvm:tpl", id="own-disposable-by-its-template"),
        pytest.param("!a", "", id="not-one"),
        pytest.param("!gone", "", id="not-what-does-not-exist"),
        pytest.param("!@dispvm", "", id="not-disposables"),
        pytest.param("@anyvm,!a", "", id="all-but-one"),
        pytest.param("!@default|@default", "@default", id="by-naming-it"),
        pytest.param("{source}", "", id="caller"),
    ],
)
def test_dom0_no_target_and_disposables_are_matched_by_naming_them(target: str, matched: str) -> None:
    policy = policy_of(f"s * * {target} deny\n")
    tokens = ["dom0", "@adminvm", "@default", "@dispvm", "@dispvm:tpl"]
    world = WORLD.with_qube(QubeFacts("a_b", "ab-id", "AppVM", default_dispvm="tpl"))
    assert [
        token for token in tokens if kind(decide(policy, Request.of("s", "a_b", token), world)) == "rule"
    ] == matched.split()
