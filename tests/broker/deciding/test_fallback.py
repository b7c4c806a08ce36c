"""``qrexec-policy-exec`` as the C qrexec daemon runs it: what it prints is obeyed, so it must fail closed."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.deciding.carry import command_of
from broker.deciding.fallback import arguments_of
from broker.deciding.response import fields_of
from tests.broker.rig import speaking

ROOT = Path(__file__).parents[3]
ALLOW = "user=DEFAULT\nresult=allow\ntarget=work\nautostart=True\nrequested_target=work"
PATIENCE = 60.0


@contextmanager
def serving(path: Path, answer: Callable[[bytes], bytes]) -> Iterator[list[bytes]]:
    """A server that answers what it receives up to a pause, and keeps the requests."""
    requests: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        if data := connection.recv(65_536):
            requests.append(data)
            connection.sendall(answer(data))

    with speaking(path, serve):
        yield requests


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "broker.deciding.fallback", *places(folder), *arguments],
        cwd=ROOT,
        capture_output=True,
        timeout=PATIENCE,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def places(folder: Path) -> list[str]:
    return [
        f"--socket-path={folder}/policy",
        f"--qubesd-internal-socket-path={folder}/qubesd",
        f"--agent-path={folder}",
    ]


@pytest.mark.parametrize(
    ("reply", "status", "printed"),
    [
        pytest.param(ALLOW, 0, ALLOW + "\n", id="allow"),
        pytest.param("result=deny", 1, "result=deny\n", id="deny"),
        pytest.param("", 1, "result=deny\n", id="broken-off"),
        pytest.param("result=allow", 1, "result=deny\n", id="keys-missing"),
        pytest.param(ALLOW + "\n", 1, "result=deny\n", id="an-empty-line"),
        pytest.param(ALLOW + "\nresult=allow", 1, "result=deny\n", id="a-key-twice"),
        pytest.param(ALLOW.replace("\n", "\r\n"), 1, "result=deny\n", id="crlf"),
        pytest.param(ALLOW.replace("True", "true"), 1, "result=deny\n", id="autostart"),
        pytest.param(ALLOW.replace("allow", "Allow"), 1, "result=deny\n", id="no-such-result"),
        pytest.param(ALLOW + "\nx", 1, "result=deny\n", id="no-equals"),
        pytest.param(ALLOW + "\nx=" + 4_095 * "y", 1, "result=deny\n", id="too-long"),
        pytest.param("result=deny\nuser=root", 1, "result=deny\n", id="a-deny-with-a-user"),
        pytest.param(ALLOW + "\nx=\x80", 1, "result=deny\n", id="not-ascii"),
        pytest.param(ALLOW + "\nx=\0", 1, "result=deny\n", id="nul"),
    ],
)
def test_only_a_good_allow_of_the_daemon_is_passed_on(
    tmp_path: Path, reply: str, status: int, printed: str
) -> None:
    with serving(tmp_path / "policy", lambda _: reply.encode("latin-1")) as requests:
        assert run(tmp_path, "--", "from", "work", "a.B+c") == (status, printed)
    assert requests == [
        b"source=from\nintended_target=work\nservice_and_arg=a.B+c\nassume_yes_for_ask=no\njust_evaluate=no\n\n"
    ]


@pytest.mark.parametrize(("reply", "status"), [("result=allow", 0), ("result=deny", 1), (ALLOW, 1), ("", 1)])
def test_an_evaluation_is_told_by_the_status_alone(tmp_path: Path, reply: str, status: int) -> None:
    with serving(tmp_path / "policy", lambda _: reply.encode()) as requests:
        options = ("--just-evaluate", "--assume-yes-for-ask")
        assert run(tmp_path, *options, "from", "work", "a.B") == (status, "")
    assert requests[0].endswith(b"assume_yes_for_ask=yes\njust_evaluate=yes\n\n")


@pytest.mark.parametrize("word", ["a\nsource=dom0", "a\xe9", "a\udc80"])
def test_a_word_cannot_become_more_than_a_value(tmp_path: Path, word: str) -> None:
    with serving(tmp_path / "policy", lambda _: ALLOW.encode()) as requests:
        assert run(tmp_path, "--", "from", word, "a.B") == (1, "result=deny\n")
    assert requests == []


@pytest.mark.parametrize("count", [0, 1, 2, 4, 6])
def test_another_number_of_arguments_is_a_usage_error(tmp_path: Path, count: int) -> None:
    assert run(tmp_path, "--", *"abcdef"[:count]) == (2, "")


QUBES: dict[str, object] = {
    "domains": {
        name: {"type": klass, "tags": [], "power_state": "Running", "uuid": None}
        for name, klass in {"dom0": "AdminVM", "work": "AppVM", "from": "AppVM"}.items()
    }
}


@pytest.mark.parametrize(
    ("policy", "state", "status"),
    [
        pytest.param("a.B * from work allow", b"0\0" + json.dumps(QUBES).encode(), 0, id="allow"),
        pytest.param("a.B * from work deny", b"0\0" + json.dumps(QUBES).encode(), 1, id="deny"),
        pytest.param("a.B * from work ask", b"0\0" + json.dumps(QUBES).encode(), 1, id="nobody-to-ask"),
        pytest.param("a.B * from work alow", b"0\0" + json.dumps(QUBES).encode(), 1, id="flawed-policy"),
        pytest.param("a.B * from work allow", b"2\0QubesException\0\0no\0\0", 1, id="qubesd-refuses"),
        pytest.param("a.B * from work allow", b"", 1, id="qubesd-breaks-off"),
        pytest.param("a.B * from work allow", b"0\0{", 1, id="state-makes-no-sense"),
        pytest.param("a.B * from work allow", b'0\0{"domains": {"work": 3}}', 1, id="state-of-no-shape"),
    ],
)
def test_without_a_daemon_it_decides_by_itself(
    tmp_path: Path, policy: str, state: bytes, status: int
) -> None:
    (tmp_path / "policy.d").mkdir()
    (tmp_path / "policy.d/10.policy").write_text(policy + "\n")
    with serving(tmp_path / "qubesd", lambda _: state):
        found = run(tmp_path, f"--path={tmp_path}/policy.d", "from", "work", "a.B")
    assert found == (status, ("result=deny" if status else ALLOW) + "\n")


def test_without_anything_it_denies(tmp_path: Path) -> None:
    assert run(tmp_path, "from", "work", "a.B") == (1, "result=deny\n")


def test_asking_the_daemon_imports_no_engine_and_starts_in_60_ms(tmp_path: Path) -> None:
    """In time of the processor, since tests run beside others."""
    script = (
        "import sys; from broker.deciding.fallback import arguments_of, decide;"
        "print(decide(arguments_of(sys.argv[1:])) and sorted({'lark', 'lxml', 'libvirt', 'asyncio',"
        " 'policy_engine', 'qubesd'} & sys.modules.keys()))"
    )
    with serving(tmp_path / "policy", lambda _: ALLOW.encode()):
        command = [sys.executable, "-c", script, *places(tmp_path), "from", "work", "a.B"]
        assert subprocess.check_output(command, cwd=ROOT, text=True) == "[]\n"
        assert min(_seconds(tmp_path) for _ in range(8)) <= 0.060


def _seconds(folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(folder, "from", "work", "a.B")[0] == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("response", "target", "switches", "called"),
    [
        pytest.param(ALLOW, "work", "-Ed", "DEFAULT:QUBESRPC a.B+c from", id="qube"),
        pytest.param(ALLOW, "dom0", "-Ed", "QUBESRPC a.B+c from name work", id="dom0"),
        pytest.param(
            ALLOW.replace("requested_target=work", "requested_target=@adminvm"),
            "dom0",
            "-Ed",
            "QUBESRPC a.B+c from keyword adminvm",
            id="dom0-by-keyword",
        ),
        pytest.param(
            ALLOW.replace("\ntarget=work", "\ntarget=@dispvm:work"),
            "disp1",
            "-EWkd",
            "DEFAULT:QUBESRPC a.B+c from",
            id="disposable",
        ),
        pytest.param(
            ALLOW + "\nservice=r.Relay+work+a.B+c",
            "work",
            "-Ed",
            "DEFAULT:QUBESRPC r.Relay+work+a.B+c from",
            id="relay",
        ),
    ],
)
def test_the_old_form_runs_the_client(response: str, target: str, switches: str, called: str) -> None:
    options = arguments_of(["7", "from", "work", "a.B+c", "99"])
    client, *words = command_of(options, fields_of(response), target)
    assert client == "/usr/lib/qubes/qrexec-client"
    assert words == [switches, target, "-c", "99,from,7", "--", called]


def test_the_old_form_starts_nothing_that_is_denied(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "policy", lambda _: b"result=deny"),
        serving(tmp_path / "qubesd", lambda _: b"0\0") as started,
    ):
        words = ("7", "from", "work", "a.B", "99")
        assert run(tmp_path, f"--qubesd-socket-path={tmp_path}/qubesd", *words) == (1, "result=deny\n")
    assert started == []


def test_the_old_form_starts_the_target_and_denies_where_there_is_no_client(tmp_path: Path) -> None:
    if Path("/usr/lib/qubes/qrexec-client").exists():
        pytest.skip("/usr/lib/qubes/qrexec-client is there and would be run")
    with (
        serving(tmp_path / "policy", lambda _: ALLOW.encode()),
        serving(tmp_path / "qubesd", lambda _: b"0\0") as started,
    ):
        words = ("7", "from", "work", "a.B", "99")
        assert run(tmp_path, f"--qubesd-socket-path={tmp_path}/qubesd", *words) == (1, "result=deny\n")
    assert started == [b"admin.vm.Start+ dom0 name work\0"]
