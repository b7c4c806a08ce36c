"""From a decision to the text for the qrexec daemon."""

import pytest

from policy_engine import (
    Allowed,
    Asked,
    Denied,
    QubeFacts,
    Request,
    World,
    decide,
    respond,
    settle,
    take,
)
from tests.policy_engine.strategies import DOM0_UUID, kind, policy_of

WORLD = World.of(
    [
        QubeFacts("dom0", DOM0_UUID, "AdminVM", power_state="Running"),
        QubeFacts("work", "w-id", "AppVM", default_dispvm="dvm", guivm="dom0", power_state="Running"),
        QubeFacts("vault", "v-id", "AppVM", default_dispvm="gone"),
        QubeFacts("old", None, "AppVM"),
        QubeFacts("dvm", "d-id", "AppVM", template_for_dispvms=True),
        QubeFacts("plain", "p-id", "AppVM"),
        QubeFacts("relay", "r-id", "AppVM"),
        QubeFacts("far", "f-id", "RemoteVM", relayvm="relay", transport_rpc="t.SSH"),
        QubeFacts("near", "n-id", "RemoteVM", relayvm="gone", transport_rpc="t.SSH"),
        QubeFacts("lost", "l-id", "RemoteVM", transport_rpc="t.SSH"),
        QubeFacts("mute", "m-id", "RemoteVM", relayvm="relay"),
    ]
)


@pytest.mark.parametrize(
    ("rule", "target", "lines"),
    [
        pytest.param(
            "* * * @adminvm allow user=root",
            "@adminvm",
            "user=root target=dom0 requested_target=@adminvm",
            id="dom0",
        ),
        pytest.param(
            "* * * * allow",
            f"uuid:{DOM0_UUID}",
            f"user=DEFAULT target=dom0 requested_target=uuid:{DOM0_UUID}",
            id="dom0-by-uuid",
        ),
        pytest.param(
            "* * * * allow user=",
            "plain",
            "user=DEFAULT target=plain target_uuid=uuid:p-id requested_target=plain",
            id="empty-user",
        ),
        pytest.param(
            "* * * * allow",
            "uuid:p-id",
            "user=DEFAULT target=uuid:p-id target_uuid=uuid:p-id requested_target=uuid:p-id",
            id="uuid-stays",
        ),
        pytest.param(
            "* * * * allow", "old", "user=DEFAULT target=old requested_target=old", id="qube-without-uuid"
        ),
        pytest.param(
            "* * * * allow target=plain",
            "no-such",
            "user=DEFAULT target=plain target_uuid=uuid:p-id requested_target=@default",
            id="unknown-is-default",
        ),
        pytest.param(
            "* * * @dispvm allow user=u",
            "@dispvm",
            "user=u target=@dispvm:dvm target_uuid=@dispvm:uuid:d-id requested_target=@dispvm",
            id="own-disposable",
        ),
        pytest.param(
            "* * * * allow",
            "@dispvm:uuid:d-id",
            "user=DEFAULT target=@dispvm:uuid:d-id target_uuid=@dispvm:uuid:d-id "
            "requested_target=@dispvm:uuid:d-id",
            id="disposable-by-uuid",
        ),
        pytest.param(
            "* * * @default allow target=far user=u",
            "",
            "user=DEFAULT target=relay target_uuid=uuid:r-id requested_target=@default "
            "service=t.SSH+@default+s.A+x",
            id="remote-with-what-was-requested",
        ),
    ],
)
def test_the_response(rule: str, target: str, lines: str) -> None:
    request = Request.of("s.A+x", "work", target)
    allowed = decide(policy_of(rule), request, WORLD)
    assert isinstance(allowed, Allowed)
    user, *rest = lines.split()
    place = [line for line in rest if line.startswith("target")]
    assert respond(allowed, request, WORLD) == "\n".join(
        [user, "result=allow", *place, "autostart=True", *rest[len(place) :]]
    )


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        pytest.param("work", "loopback", id="loopback"),
        pytest.param("lost", "relay-not-set", id="no-relay"),
        pytest.param("near", "relay-not-set", id="relay-is-gone"),
        pytest.param("mute", "transport-not-set", id="no-transport"),
    ],
)
def test_an_allowed_call_that_cannot_be_answered_is_denied(target: str, wanted: str) -> None:
    request = Request.of("s.A", "work", target)
    allowed = decide(policy_of("* * * * allow"), request, WORLD)
    assert isinstance(allowed, Allowed)
    denied = respond(allowed, request, WORLD)
    assert isinstance(denied, Denied)
    assert (denied.kind, denied.notify, denied.rule) == (wanted, True, allowed.rule)


def test_a_target_that_is_gone_by_now_is_denied() -> None:
    request = Request.of("s.A", "work", "plain")
    allowed = decide(policy_of("* * * * allow"), request, WORLD)
    assert isinstance(allowed, Allowed)
    assert kind(respond(allowed, request, WORLD.without("plain"))) == "no-target"


def test_a_relay_calls_in_the_name_of_its_remote() -> None:
    policy = policy_of("* * far * allow")
    request = Request.of("s.A", "relay", "plain", "far")
    allowed = decide(policy, request, WORLD)
    assert isinstance(allowed, Allowed)
    assert allowed.source == "far"
    text = respond(allowed, request, WORLD)
    assert isinstance(text, str)
    assert text.splitlines()[-1] == "policy_source=far"
    to_dom0 = decide(policy, request._replace(target="dom0"), WORLD)
    assert isinstance(to_dom0, Allowed)
    assert "policy_source" not in str(respond(to_dom0, request, WORLD))
    assert kind(decide(policy, request._replace(source="uuid:r-id"), WORLD)) == "requested-source-not-relay"
    assert (
        kind(decide(policy, request._replace(requested_source="plain"), WORLD))
        == "requested-source-not-remote"
    )
    assert kind(decide(policy, request._replace(requested_source="no"), WORLD)) == "requested-source-unknown"


def asked(rule: str, target: str = "plain") -> Asked:
    decision = decide(policy_of(rule), Request.of("s.A", "work", target), WORLD)
    assert isinstance(decision, Asked)
    return decision


@pytest.mark.parametrize(
    ("answer", "wanted", "notify"),
    [
        pytest.param("allow:plain", "allowed", False, id="yes"),
        pytest.param("deny", "user", False, id="no"),
        pytest.param(None, "user", False, id="nobody-to-ask"),
        pytest.param("allow:work", "not-a-choice", True, id="not-offered"),
        pytest.param("allow:plain\n", "not-a-choice", True, id="line-end"),
        pytest.param("allow:", "not-a-choice", True, id="nothing"),
        pytest.param("ALLOW:plain", "bad-agent-answer", True, id="case"),
        pytest.param("deny\n", "bad-agent-answer", True, id="no-with-line-end"),
        pytest.param("", "bad-agent-answer", True, id="empty"),
    ],
)
def test_the_answer_to_a_question(answer: str | None, wanted: str, notify: bool) -> None:
    settled = settle(asked("* * * * ask"), answer, WORLD)
    assert (kind(settled), settled.notify) == (wanted, notify)


def test_a_no_notifies_if_the_rule_says_so() -> None:
    assert settle(asked("* * * * ask notify=yes"), "deny", WORLD).notify


@pytest.mark.parametrize(
    ("redirect", "wanted"),
    [
        pytest.param("@dispvm", "no-dispvm-base", id="disposable-of-nothing"),
        pytest.param("no-such", "no-target", id="unknown-qube"),
        pytest.param("@dispvm:no-such", "not-dispvm-template", id="unknown-template"),
        pytest.param("@adminvm", "allowed", id="dom0"),
    ],
)
def test_a_choice_that_was_never_checked(redirect: str, wanted: str) -> None:
    question = asked(f"* * * * ask target={redirect}")
    (choice,) = question.targets
    assert kind(take(question, choice, WORLD)) == wanted


def test_a_default_disposable_that_is_gone_is_none() -> None:
    policy = policy_of("* * * @dispvm:gone deny\n* * * @dispvm allow\n")
    assert kind(decide(policy, Request.of("s.A", "vault", "@dispvm"), WORLD)) == "no-dispvm-base"
