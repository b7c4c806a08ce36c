"""The power calls: their words, their replies, their place in the table."""

from pathlib import Path

import pytest

from qubesd.api.method import DONE, Access, Command, Method, Need, Reply, Scope, Text
from qubesd.api.power import METHODS, Stop, parse_stop
from qubesd.errors import ProtocolError
from tests.qubesd.core.power_rig import Rig, play

OTHER_ACCESS = {"admin.vm.CurrentState": Access.READ, "admin.vm.Console": Access.WRITE}
BY_NAME = {method.name: method for method in METHODS}


async def call(r: Rig, method: Method, target: str, argument: str = "") -> Reply:
    """As the dispatcher does it: the parser's value, then the handler."""
    qube = r.qube(target)
    value = method.parse(r.core, qube, argument, b"") if method.parse else None
    reply = method.handler(r.core, Command(method.name, argument, r.qube("dom0"), qube, value))
    assert not isinstance(reply, Reply)
    return await reply


@pytest.mark.parametrize(
    ("argument", "want"),
    [
        ("", Stop(force=False, wait=False)),
        ("force", Stop(force=True, wait=False)),
        ("wait", Stop(force=False, wait=True)),
        ("force+wait", Stop(force=True, wait=True)),
        ("wait+force", Stop(force=True, wait=True)),
    ],
)
def test_words_of_shutdown(tmp_path: Path, argument: str, want: Stop) -> None:
    async def story(r: Rig) -> None:
        assert parse_stop(r.core, r.qube("vault"), argument, b"") == want

    play(tmp_path, story)


@pytest.mark.parametrize(
    "argument", ["now", "Force", "force+", "+force", "+", "force+now", "force+force", "force wait"]
)
def test_other_words_of_shutdown(tmp_path: Path, argument: str) -> None:
    async def story(r: Rig) -> None:
        with pytest.raises(ProtocolError) as caught:
            parse_stop(r.core, r.qube("vault"), argument, b"")
        assert "now" not in str(caught.value)

    play(tmp_path, story)


def test_calls_do_what_they_say(tmp_path: Path) -> None:
    async def story(r: Rig) -> None:
        async def state() -> str:
            reply = await call(r, BY_NAME["admin.vm.CurrentState"], "vault")
            assert isinstance(reply, Text)
            return reply.content

        assert await state() == "mem=0 mem_static_max=0 cputime=0 power_state=Halted"
        for name, argument, after in (
            ("Start", "", "Running"),
            ("Pause", "", "Paused"),
            ("Unpause", "", "Running"),
            ("Suspend", "", "Paused"),
            ("Resume", "", "Running"),
            ("Shutdown", "wait", "Halted"),
            ("Start", "", "Running"),
            ("Pause", "", "Paused"),
            ("Shutdown", "force+wait", "Halted"),
            ("Start", "", "Running"),
            ("Kill", "", "Halted"),
        ):
            assert await call(r, BY_NAME[f"admin.vm.{name}"], "vault", argument) is DONE
            words = dict(word.split("=") for word in (await state()).split(" "))
            assert list(words) == ["mem", "mem_static_max", "cputime", "power_state"]
            assert words["power_state"] == after
            assert words["mem"] == ("0" if after == "Halted" else str(400 * 1024))

    play(tmp_path, story)


@pytest.mark.parametrize("name", ["dom0", "far"])
def test_what_always_runs_says_so(tmp_path: Path, name: str) -> None:
    async def story(r: Rig) -> None:
        reply = await call(r, BY_NAME["admin.vm.CurrentState"], name)
        assert isinstance(reply, Text)
        assert reply.content.endswith(" cputime=0 power_state=Running")

    play(tmp_path, story)


def test_contracts() -> None:
    for method in METHODS:
        assert method.scope is Scope.LOCAL
        assert method.payload is Need.FORBIDDEN
        assert method.argument is (Need.OPTIONAL if method.name == "admin.vm.Shutdown" else Need.FORBIDDEN)
        assert method.access is OTHER_ACCESS.get(method.name, Access.EXECUTE)
