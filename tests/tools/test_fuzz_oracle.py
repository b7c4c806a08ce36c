"""What the fuzzer takes requests to mean, and what it takes to be right: its own statement of the grammar."""

from pathlib import Path

import pytest

from policy_engine import PolicyError, Request, World, load
from tools.fuzzing.cases import Case, Ending, case
from tools.fuzzing.exchange import Outcome, wrong
from tools.fuzzing.ground import Ground, Place
from tools.fuzzing.oracle import ALLOW, DENY, Meaning, answer, answers, meaning
from tools.fuzzing.wire import LINE, POLICY, SCREEN, SIMPLE

ASK = b"source=work\nintended_target=mail\nservice_and_arg=a.A+x\n\n"
CALL = Request("a.A", "+x", "work", "mail")
HEADER = b"policy.EvalSimple+a.A+x sys-gui\0"


def sent(*pieces: bytes, socket: str = POLICY, ending: Ending = Ending.HALF_CLOSE) -> Case:
    return Case("test", socket, pieces, ending)


@pytest.mark.parametrize(
    ("it", "request_", "whole", "legal"),
    [
        pytest.param(sent(ASK, ending=Ending.WAIT), CALL, True, True, id="as-the-c-daemon-sends-it"),
        pytest.param(sent(ASK[:-1]), CALL, True, True, id="ended-by-the-end"),
        pytest.param(sent(ASK[:-2]), CALL, True, True, id="last-line-without-its-end"),
        pytest.param(sent(ASK[:-1], ending=Ending.WAIT), CALL, False, True, id="not-ended"),
        pytest.param(sent(ASK + b"x"), CALL, True, True, id="more-along-with-it"),
        pytest.param(sent(ASK, b"x"), CALL, True, False, id="more-after-it"),
        pytest.param(
            sent(ASK.replace(b"mail", b"mail\r")), CALL._replace(target="mail\r"), True, True, id="cr-stays"
        ),
        pytest.param(
            sent(ASK.replace(b"+x", b"")), CALL._replace(argument="+"), True, True, id="without-argument"
        ),
        pytest.param(sent(b"requested_source=\n" + ASK), CALL, True, True, id="empty-is-absent"),
        pytest.param(sent(b"source=work\n" + ASK), None, True, True, id="twice"),
        pytest.param(sent(b"domain_id=1\n" + ASK), None, True, True, id="unknown"),
        pytest.param(sent(b"just_evaluate=y\n" + ASK), None, True, True, id="neither-yes-nor-no"),
        pytest.param(sent(b"\n" + ASK), None, True, True, id="empty-line-first"),
        pytest.param(sent(ASK.replace(b"mail", b"m\xe4il")), None, True, True, id="not-ascii"),
        pytest.param(sent(b"x" * (LINE + 1)), None, True, False, id="line-too-long"),
        pytest.param(sent(HEADER + b"work\0mail", socket=SIMPLE), CALL, True, True, id="evaluation"),
        pytest.param(
            sent(HEADER + b"work\0mail", socket=SIMPLE, ending=Ending.WAIT), CALL, False, True, id="no-end"
        ),
        pytest.param(sent(HEADER + b"work\0mail", socket=SCREEN), None, True, True, id="another-service"),
        pytest.param(sent(HEADER + b"work\0mail\0", socket=SIMPLE), None, True, True, id="further-nul"),
        pytest.param(sent(HEADER + b"work\0uuid:1", socket=SIMPLE), None, True, True, id="colon"),
        pytest.param(sent(HEADER + b"w" * 32 + b"\0mail", socket=SIMPLE), None, True, True, id="long-source"),
    ],
)
def test_meaning(it: Case, request_: Request | None, whole: bool, legal: bool) -> None:
    found = meaning(it)
    assert (found.request, found.whole, found.legal) == (request_, whole, legal)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    root: Path = tmp_path_factory.mktemp("ground")
    return Place(1, root / "run", root / "etc").lay_out(0)


@pytest.mark.parametrize(
    ("it", "outcome", "fault"),
    [
        pytest.param(sent(b"x"), Outcome(b"", False, True), None, id="closed-without-a-byte"),
        pytest.param(sent(b"x"), Outcome(DENY, False, True), "expected b''", id="an-answer-to-noise"),
        pytest.param(sent(b"x"), Outcome(b"", True, True), "bytes unread", id="reset"),
        pytest.param(sent(b"x" * (LINE + 1)), Outcome(b"", True, True), None, id="too-long-may-be-reset"),
        pytest.param(sent(b"x"), Outcome(b"", False, False), "no end within", id="never-closed"),
        pytest.param(
            sent(b"x", ending=Ending.WAIT), Outcome(b"", False, False), None, id="waiting-for-the-rest"
        ),
        pytest.param(
            sent(ASK[:9], ending=Ending.WAIT), Outcome(DENY, False, True), "half a request", id="too-soon"
        ),
        pytest.param(sent(ASK, ending=Ending.CLOSE), Outcome(b"", True, False), None, id="nobody-looked"),
    ],
)
def test_what_is_wrong(ground: Ground, it: Case, outcome: Outcome, fault: str | None) -> None:
    found = wrong(it, meaning(it), outcome, [ground])
    assert found is None if fault is None else found is not None and fault in found


def test_a_policy_that_does_not_load_denies(ground: Ground) -> None:
    broken = Ground(0, PolicyError("io", "gone", file="policy.d"), ground.world, b"")
    for number in range(300):
        assert answer(meaning(case(1, number)), broken) in (DENY, b"")


def test_a_yes_may_be_none_only_where_something_changes(tmp_path: Path) -> None:
    (tmp_path / "10-ask.policy").write_text("a.A * work mail ask\na.B * work mail allow\n")
    qubes = {name: {"type": "AppVM", "guivm": "dom0"} for name in ("work", "mail")}
    world = World.from_system_info({"domains": {"dom0": {"type": "AdminVM"}, **qubes}})
    ground = Ground(0, load(directories=[str(tmp_path)]), world, b"")
    words = set[bytes]()
    for number in range(20):
        asked = Meaning(CALL._replace(argument=f"+{number}"), True, True)
        words.add(said := answer(asked, ground))
        assert answers(asked, [ground]) == {said}
        assert answers(asked, [ground, ground]) == {said, DENY}
        assert DENY not in answers(asked._replace(assume_yes=True), [ground, ground])
    assert len(words) > 1
    granted = Meaning(CALL._replace(service="a.B"), True, True)
    assert DENY not in answers(granted, [ground, ground])


def test_an_evaluation_is_one_word(ground: Ground) -> None:
    asks = Meaning(CALL, True, True, assume_yes=True, just_evaluate=True)
    assert answer(asks, ground) in (ALLOW, DENY)


def test_a_case_follows_from_its_number() -> None:
    assert [case(3, number) for number in range(200)] == [case(3, number) for number in range(200)]
    assert case(3, 1) != case(4, 1)
