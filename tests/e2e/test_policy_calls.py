"""The policy edited over qubesd's sockets: by those whose part it is, and by nobody else."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import call
from broker.editing.edits import PolicyEdits, places_of
from broker.editing.entry import NOBODY, entry_of
from broker.editing.store import token_of
from broker.wire import Failure, FramingError
from qubesd.config import rooted
from tests.broker import other_user
from tests.broker.policy_rig import exchange, lines
from tests.broker.rig import PATIENCE, Daemon, answer, serving

DIALECT = "!dialect delegation-1\n"
POLICY = f"""{DIALECT}
policy.include.Get|policy.include.Replace|policy.include.Remove +team-a @tag:team-a @adminvm allow
@read         * reader @adminvm allow
@write:global * writer @adminvm allow
admin.vm.feature.Set|admin.vm.feature.Get * @tag:team-a @tag:team-a !include include/team-a
"""
USER = 61_011
TEAM = f"{DIALECT}admin.vm.feature.Set * ann web allow\n"


@pytest.fixture(scope="module", name="daemon")
def fixture_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("policy"), POLICY, f'[users]\n{USER} = "ann"\n') as daemon:
        daemon.create("ann", "web", "stranger", "reader", "writer", tags={"ann": "team-a", "web": "team-a"})
        yield daemon


@pytest.fixture(name="ann")
def fixture_ann(daemon: Daemon) -> Path:
    """The socket of a qube that owns a frame."""
    (daemon.root / "etc/qubes/policy.d/include/team-a").unlink(missing_ok=True)
    return daemon.channel("ann")


def edits(daemon: Daemon) -> PolicyEdits:
    return PolicyEdits(places_of(rooted(daemon.root)))


def problem(reply: bytes | Failure) -> tuple[str, str]:
    assert isinstance(reply, Failure), reply
    return reply.kind, reply.message


def test_an_owner_writes_its_frame_and_it_comes_into_force(daemon: Daemon, ann: Path) -> None:
    assert answer(ann, "policy.include.Replace", "dom0", "team-a", b"new\n" + TEAM.encode()) == b""
    token = token_of(TEAM.encode()).encode()
    assert answer(ann, "policy.include.Get", "dom0", "team-a") == token + b"\n" + TEAM.encode()
    deadline = time.monotonic() + PATIENCE
    while isinstance(answer(ann, "admin.vm.feature.Set", "web", "f", b"1"), Failure):
        assert time.monotonic() < deadline, "the new policy does not come into force"
    assert answer(ann, "policy.include.Replace", "dom0", "team-a", token + b"\n" + DIALECT.encode()) == b""
    while not isinstance(answer(ann, "admin.vm.feature.Set", "web", "f", b"1"), Failure):
        assert time.monotonic() < deadline, "the new policy does not come into force"
    assert [str(entry.author) for entry in edits(daemon).history()[-2:]] == ["ann", "ann"]


@pytest.mark.parametrize(
    ("service", "argument", "payload", "wanted"),
    [
        pytest.param(
            "Get", "team-a", b"", ("PolicyAdminFileNotFoundException", "there is no such file"), id="none"
        ),
        pytest.param(
            "Replace",
            "team-a",
            b"any\n" + TEAM.encode() + b"* * ann web alow\n",
            ("PolicyAdminSyntaxException", "include/team-a:3: column 13: expected allow"),
            id="syntax",
        ),
        pytest.param(
            "Replace",
            "team-a",
            b"any\n* * @anyvm @anyvm allow\n",
            ("PolicyAdminSyntaxException", "include/team-a: a framed file is in the dialect"),
            id="out-of-the-frame",
        ),
        pytest.param(
            "Replace", "team-a", b"any", ("PolicyAdminProtocolException", "expected a line"), id="line"
        ),
        pytest.param("Replace", "team-a", b"", ("ProtocolError", "missing payload"), id="payload"),
        pytest.param("Replace", "team-b", b"new\n", ("PermissionDenied", "denied"), id="of-others"),
        pytest.param("List", "", b"", ("PermissionDenied", "denied"), id="list"),
    ],
)
def test_what_an_owner_is_refused(
    service: str, argument: str, payload: bytes, wanted: tuple[str, str], ann: Path
) -> None:
    name, message = problem(answer(ann, f"policy.include.{service}", "dom0", argument, payload))
    assert name == wanted[0]
    assert wanted[1] in message


def test_nobody_else_reaches_the_policy(daemon: Daemon) -> None:
    stranger = daemon.channel("stranger")
    for service, argument, payload in (
        ("policy.List", "", b""),
        ("policy.Get", "10-test", b""),
        ("policy.Replace", "10-test", b"any\n* * @anyvm @anyvm allow\n"),
        ("policy.include.Replace", "team-a", b"any\n" + TEAM.encode()),
        ("policy.Remove", "10-test", b"any"),
        ("policy.GetFiles", "admin.vm.List", b""),
        ("policy.NoSuchCall", "", b""),
    ):
        assert problem(answer(stranger, service, "dom0", argument, payload))[0] == "PermissionDenied"


def test_the_sets_of_the_dialect_cover_the_calls(daemon: Daemon) -> None:
    reader, writer = daemon.channel("reader"), daemon.channel("writer")
    assert answer(reader, "policy.List") == b"10-test\n"
    assert b"@write:global" in answer_of(reader, "policy.Get", "10-test")
    assert answer(reader, "policy.GetFiles", "dom0", "policy.List") == b"10-test\n"
    assert answer(writer, "policy.Replace", "dom0", "20-more", b"new\n") == b""
    assert answer(reader, "policy.List") == b"10-test\n20-more\n"
    assert answer(writer, "policy.Remove", "dom0", "20-more", b"any") == b""
    assert problem(answer(writer, "policy.List"))[0] == "PermissionDenied"
    assert problem(answer(reader, "policy.Remove", "dom0", "10-test", b"any"))[0] == "PermissionDenied"


def answer_of(path: Path, service: str, argument: str) -> bytes:
    reply = answer(path, service, "dom0", argument)
    assert isinstance(reply, bytes)
    return reply


def test_a_file_that_is_no_utf_8_is_for_dom0_to_see(daemon: Daemon) -> None:
    place = daemon.root / "etc/qubes/policy.d/include/raw"
    place.write_bytes(b"\xff\n")
    told = problem(answer(daemon.channel("reader"), "policy.include.Get", "dom0", "raw"))
    place.unlink()
    assert told[0] == "PolicyAdminException"
    assert "no UTF-8" in told[1]


def test_each_call_is_in_the_audit_without_its_content(daemon: Daemon, ann: Path) -> None:
    answer(ann, "policy.include.Replace", "dom0", "team-a", b"new\n" + DIALECT.encode() + b"# private\n")
    records = [json.loads(line) for line in daemon.audit().splitlines()]
    (record,) = records[-1:]
    assert (record["caller"], record["service"], record["argument"]) == (
        "ann",
        "policy.include.Replace",
        "team-a",
    )
    assert (record["decision"], record["outcome"]) == ("allow", "ok")
    assert record["rule"].endswith("10-test.policy:3")
    assert "private" not in daemon.audit()


def test_calls_are_answered_while_an_edit_waits(daemon: Daemon, ann: Path) -> None:
    """Somebody holds the lock of the policy: an edit waits for it, and nothing else does."""
    done = threading.Event()

    def edit() -> None:
        assert answer(ann, "policy.include.Replace", "dom0", "team-a", b"new\n" + DIALECT.encode()) == b""
        done.set()

    waiting = threading.Thread(target=edit)
    descriptor = os.open(daemon.root / "etc/qubes/policy.d", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        waiting.start()
        for _ in range(20):
            assert call(daemon.socket, "admin.vm.List", "ann")
        assert not done.is_set()
    finally:
        os.close(descriptor)
    waiting.join(PATIENCE)
    assert done.is_set()


def test_who_floods_the_policy_with_edits_waits_for_itself(daemon: Daemon, ann: Path) -> None:
    """Whatever else it has asked for, a caller has one edit in line before those of others."""
    lock = os.open(daemon.root / "etc/qubes/policy.d", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    begun = len(edits_made(daemon))
    writer = daemon.channel("writer")
    asked = [
        threading.Thread(target=answer, args=(ann, "policy.include.Replace", "dom0", "team-a", flood(number)))
        for number in range(8)
    ]
    asked.append(
        threading.Thread(target=answer, args=(writer, "policy.Replace", "dom0", "20-more", b"any\n"))
    )
    try:
        for thread in asked:
            thread.start()
            # What was sent before has been taken when a later call is answered.
            call(daemon.socket, "admin.vm.List", "ann")
    finally:
        os.close(lock)
    for thread in asked:
        thread.join(PATIENCE)
    call(writer, "policy.Remove", argument="20-more", payload=b"any")
    made = edits_made(daemon)[begun:]
    assert sorted(made) == ["ann"] * 8 + ["writer"] * 2
    assert made.index("writer") <= 1


def flood(number: int) -> bytes:
    return b"any\n" + DIALECT.encode() + b"# %d\n" % number


def edits_made(daemon: Daemon) -> list[str]:
    """Whose, in order."""
    log = (daemon.root / "var/lib/qubes/policy-history/log").read_bytes().splitlines()
    return [str(author) for line in log if (author := entry_of(line).author) != NOBODY]


def test_a_user_that_is_mapped_to_the_owner_edits_its_frame(daemon: Daemon, ann: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: no second user to call as")
    for path, mode in ((daemon.root.parent, 0o755), (daemon.root, 0o755), (daemon.root / "run", 0o755)):
        path.chmod(mode)
    request = b"policy.include.Replace+team-a dom0 name dom0\0any\n" + DIALECT.encode()
    command = [sys.executable, other_user.__file__, str(daemon.root / "run"), "user.sock", str(USER)]
    found = subprocess.run(command, input=request, stdout=subprocess.PIPE, check=True, timeout=PATIENCE)
    assert found.stdout == b"0\0"
    assert edits_made(daemon)[-1] == "ann"


def test_the_qrexec_daemon_is_told_to_run_the_program_in_dom0(daemon: Daemon) -> None:
    """Where the call comes by qrexec, the policy is asked over its own socket."""
    answered = [
        asyncio.run(exchange(daemon.root / "run/qubes/policy.sock", lines(*question), end=False))
        for question in (
            ("ann", "dom0", "policy.include.Replace+team-a"),
            ("ann", "dom0", "policy.include.Replace+team-b"),
            ("stranger", "dom0", "policy.List+"),
        )
    ]
    assert {b"result=allow", b"target=dom0"} <= set(answered[0].split(b"\n"))
    assert answered[1:] == [b"result=deny", b"result=deny"]
    records = [json.loads(line) for line in daemon.audit().splitlines()][-2:]
    assert [record["service"] for record in records] == ["policy.include.Replace", "policy.List"]


def test_a_payload_that_the_wire_does_not_take_changes_nothing(daemon: Daemon, ann: Path) -> None:
    too_much = b"new\n" + DIALECT.encode() + b"#" * (1 << 16)
    with pytest.raises(FramingError):
        answer(ann, "policy.include.Replace", "dom0", "team-a", too_much)
    assert not (daemon.root / "etc/qubes/policy.d/include/team-a").exists()
