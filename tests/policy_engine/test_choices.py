"""What ``ask`` offers: the traps of section 7.3, one each."""

import pytest

from policy_engine import Asked, QubeFacts, Request, World, decide, visible
from tests.policy_engine.strategies import DOM0_UUID, kind, policy_of

QUBES = [
    QubeFacts("work", "w-id", "AppVM", frozenset({"t"}), default_dispvm="dvm", power_state="Running"),
    QubeFacts("mail", "m-id", "AppVM", frozenset({"t"})),
    QubeFacts(
        "dvm", "d-id", "TemplateVM", frozenset({"u"}), template_for_dispvms=True, power_state="Running"
    ),
    QubeFacts("hidden", "h-id", "AppVM", frozenset({"t"}), template_for_dispvms=True, internal="0"),
]
BARE = World.of(QUBES)
WORLD = BARE.with_qube(QubeFacts("dom0", DOM0_UUID, "AdminVM", frozenset({"t"})))


@pytest.mark.parametrize(
    ("rules", "choices"),
    [
        pytest.param("* * * * ask", "@dispvm:dvm dom0 dvm mail", id="all-but-oneself-and-the-internal"),
        pytest.param("* * * @anyvm ask", "@dispvm:dvm dvm mail", id="all-but-dom0"),
        pytest.param("* * * @tag:t ask", "dom0 mail", id="tag-dom0-too"),
        pytest.param("* * * @dispvm:@tag:u ask\n* * * mail ask", "@dispvm:dvm mail", id="tagged-disposable"),
        pytest.param(
            "* * * @dispvm:uuid:d-id ask\n* * * mail ask", "@dispvm:dvm mail", id="uuid-becomes-name"
        ),
        pytest.param("* * * uuid:m-id ask", "mail", id="qube-by-uuid"),
        pytest.param("* * * no-such ask\n* * * mail ask", "mail", id="unknown-is-nothing"),
        pytest.param("* * * mail ask\n* * * @default ask", "mail", id="default-is-nothing"),
        pytest.param("* * * mail ask\n* * * dvm deny", "mail", id="deny-of-another"),
        pytest.param("* * * mail ask\n* * * @anyvm deny", "mail", id="later-deny-removes-nothing"),
        pytest.param("* * * dvm deny\n* * * @type:TemplateVM ask\n* * * mail ask", "mail", id="deny-removes"),
        pytest.param(
            "* * * dvm deny\n* * * mail ask\n* * * dvm ask", "mail", id="the-first-word-on-a-qube-counts"
        ),
        pytest.param("* * * dvm allow\n* * * dvm deny\n* * * mail ask", "dvm mail", id="allow-is-a-choice"),
        pytest.param(
            "* * * @adminvm deny\n* * * * ask", "@dispvm:dvm dom0 dvm mail", id="adminvm-is-not-dom0"
        ),
        pytest.param(
            "* * * dom0 deny\n* * * @adminvm ask\n* * * mail ask", "dom0 mail", id="dom0-is-not-adminvm"
        ),
        pytest.param(
            "* * * @dispvm deny\n* * * @anyvm ask", "@dispvm:dvm dvm mail", id="dispvm-is-no-template"
        ),
        pytest.param(
            "* * * @dispvm:dvm deny\n* * * @anyvm ask", "@dispvm:dvm dvm mail", id="nor-the-other-way"
        ),
        pytest.param(
            "* * * @default deny\n* * * mail ask\n* * * dvm allow target=dom0", "dom0 mail", id="redirect"
        ),
        pytest.param("* * * mail ask target=@dispvm", "@dispvm", id="redirect-is-not-expanded"),
        pytest.param("* * * mail ask target=hidden", "hidden", id="redirect-may-be-internal"),
        pytest.param("* * * mail ask target=work", "work", id="redirect-may-be-oneself"),
        pytest.param(f"* * * mail ask target=uuid:{DOM0_UUID}", "dom0", id="redirect-to-dom0"),
        pytest.param("* * * mail ask target=uuid:m-id", "uuid:m-id", id="redirect-keeps-uuid"),
        pytest.param("* * * @anyvm ask autostart=no", "dvm", id="running-only"),
        pytest.param("* * * * ask autostart=no", "dom0 dvm", id="dom0-counts-as-running"),
        pytest.param("* * other dvm ask\n* * * mail ask", "mail", id="rules-of-others"),
        pytest.param("s.B * * dvm ask\ns.A + * dvm ask\n* * * mail ask", "mail", id="other-services"),
    ],
)
def test_choices(rules: str, choices: str) -> None:
    asked = decide(policy_of(rules), Request.of("s.A+x", "work", "mail"), WORLD)
    assert isinstance(asked, Asked)
    assert asked.targets == tuple(choices.split())


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param("* * * mail ask target=mail autostart=no", id="redirect-is-halted"),
        pytest.param("* * * mail ask target=no-such autostart=no", id="redirect-is-unknown"),
        pytest.param("* * * mail ask target=@dispvm autostart=no", id="redirect-is-a-disposable"),
        pytest.param("* * * @dispvm:@tag:t deny\n* * * mail ask autostart=no", id="none-runs"),
    ],
)
def test_no_choice_is_a_denial(rule: str) -> None:
    assert kind(decide(policy_of(rule), Request.of("s.A", "work", "mail"), WORLD)) == "nothing-to-ask"


@pytest.mark.parametrize(
    ("parameter", "default"),
    [
        pytest.param("default_target=mail", "mail", id="name"),
        pytest.param("default_target=uuid:m-id", None, id="uuid-is-never-effective"),
        pytest.param("default_target=@adminvm", "dom0", id="dom0"),
        pytest.param("default_target=@dispvm", "@dispvm:dvm", id="own-disposable"),
        pytest.param("default_target=@dispvm:hidden", None, id="no-choice"),
        pytest.param("default_target=no-such", None, id="unknown"),
        pytest.param("", None, id="none"),
    ],
)
def test_the_preselected_choice(parameter: str, default: str | None) -> None:
    asked = decide(policy_of(f"* * * * ask {parameter}"), Request.of("s.A", "work", "mail"), WORLD)
    assert isinstance(asked, Asked)
    assert asked.default_target == default


def test_a_caller_by_uuid_or_without_a_disposable() -> None:
    policy = policy_of("* * * @anyvm ask default_target=@dispvm")
    by_uuid = decide(policy, Request.of("s.A", "uuid:w-id", "mail"), WORLD)
    assert isinstance(by_uuid, Asked)
    assert "work" not in by_uuid.targets
    unknown = decide(
        policy_of("* * * @dispvm ask\n* * * mail ask"), Request.of("s.A", "no-such", "mail"), WORLD
    )
    assert isinstance(unknown, Asked)
    assert (unknown.targets, unknown.default_target) == (("mail",), None)


@pytest.mark.parametrize("target", ["@adminvm", "*"])
def test_a_world_without_dom0_offers_it_all_the_same(target: str) -> None:
    asked = decide(policy_of(f"* * * {target} ask"), Request.of("s.A", "work", "dom0"), BARE)
    assert isinstance(asked, Asked)
    assert "dom0" in asked.targets


def test_dom0_counts_as_running_in_lists() -> None:
    assert visible(policy_of("* * * * allow autostart=no"), WORLD, "mail", "s.A") == ["dom0", "dvm", "work"]
