"""A dom0: qubesd, whoever answers on the policy socket, the C daemon that asks there, the user's agent."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from broker.client import call
from broker.sockets import answers
from broker.wire import Failure, parse_reply
from tests.broker.rig import PATIENCE, ROOT, Daemon, serving, speaking
from tests.c.stock import REFUSED, Stock, Trace

TOGETHER, APART = "qubesd", "qrexec-policy-daemon"
"""Who answers on the policy socket: qubesd itself, or the stand-alone daemon in front of it."""

POLICY = """\
admin.vm.List * alice @adminvm allow target=dom0
admin.vm.List * alice @default allow target=dom0
admin.vm.property.Get * alice @anyvm allow target=dom0
admin.vm.property.Get * alice @adminvm allow target=dom0
admin.vm.feature.Set * alice alice allow target=dom0
admin.vm.feature.Set +asked alice bob ask target=dom0
admin.vm.feature.Get * alice alice allow target=dom0
admin.vm.notes.Get * alice @anyvm allow
admin.vm.CurrentState * alice bob ask target=dom0
policy.EvalSimple * alice dom0 allow
qubes.FeaturesRequest * alice dom0 allow
qubes.NotifyTools * alice @adminvm allow
qubes.NotifyUpdates * alice @adminvm allow target=dom0
no.Such * alice dom0 allow
test.Run * alice bob allow
test.Root * alice bob allow user=root
test.NoStart * alice bob allow autostart=no
test.Default * alice @default allow target=bob
test.Dispose * alice @dispvm allow target=@dispvm:maker
test.Ask * alice @anyvm ask
test.Long * alice @anyvm allow target=bob
test.Relay * far bob allow
test.Far * alice far allow
a.B + alice bob allow
a.B +x+y alice bob allow
"""


@dataclass(frozen=True)
class Dom0:
    """``kind`` is who answers on the policy socket."""

    kind: str
    daemon: Daemon
    stock: Stock
    agent: Agent


@contextmanager
def dom0_of(program: Path, root: Path, kind: str) -> Iterator[Dom0]:
    """A dom0 below ``root`` with the qubes that ``POLICY`` names."""
    stock = Stock(program, root)
    config = f"trust_qrexec_consent = {'true' if kind == APART else 'false'}\n"
    with ExitStack() as stack:
        daemon = stack.enter_context(serving(root, POLICY, config))
        furnish(stock)
        if kind == APART:
            stack.enter_context(policy_daemon(stock))
        yield Dom0(kind, daemon, stock, stack.enter_context(agent_of(stock)))


def furnish(stock: Stock) -> None:
    """The qubes that the policy names, dom0's services and the fallback."""
    qubesd = stock.root / "run/qubesd.sock"

    def create(klass: str, name: str, base: str = "", **properties: str) -> None:
        call(qubesd, f"admin.vm.Create.{klass}", "dom0", base, f"name={name} label=red".encode("ascii"))
        for key, value in properties.items():
            call(qubesd, "admin.vm.property.Set", name, key, value.encode("ascii"))

    create("TemplateVM", "base")
    create("AppVM", "maker", "base", template_for_dispvms="True")
    create("StandaloneVM", "alice", guivm="dom0")
    create("StandaloneVM", "bob")
    create("RemoteVM", "far", relayvm="alice", transport_rpc="test.Transport", remote_name="far")
    stock.services.mkdir(parents=True, exist_ok=True)
    stock.install_services("admin.vm.List", "admin.vm.property.Get", "admin.vm.CurrentState")
    stock.install_services("admin.vm.feature.Get", "admin.vm.feature.Set")
    stock.install_services("qubes.FeaturesRequest", "qubes.NotifyTools", "qubes.NotifyUpdates")
    stock.install_fallback()


@contextmanager
def policy_daemon(stock: Stock) -> Iterator[None]:
    """``qrexec-policy-daemon`` in front of the qubesd of this dom0; it has to stop cleanly at the end."""
    process, errors = start_policy_daemon(stock)
    try:
        yield
    finally:
        process.terminate()
        status = process.wait(PATIENCE)
    text = errors.read_text(encoding="utf-8")
    assert status == 0, text
    assert "Traceback" not in text, text


def start_policy_daemon(stock: Stock) -> tuple[subprocess.Popen[bytes], Path]:
    """The daemon, once it answers, and the file with its messages."""
    errors = stock.root / "policy-errors"
    with errors.open("ab") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "broker.deciding.daemon"),
                f"--policy-path={stock.root}/run/qubes/policy.d",
                f"--policy-path={stock.root}/etc/qubes/policy.d",
                f"--socket-path={stock.policy}",
                f"--eval-socket-path={stock.services}/policy.EvalSimple",
                f"--gui-socket-path={stock.services}/policy.EvalGUI",
                f"--agent-path={stock.services}",
                f"--qubesd-socket-path={stock.root}/run/qubesd.internal.sock",
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    deadline = time.monotonic() + PATIENCE
    while not answers(stock.policy):
        assert process.poll() is None, errors.read_text(encoding="utf-8")
        assert time.monotonic() < deadline, "the policy daemon does not answer"
        time.sleep(0.02)
    return process, errors


@dataclass
class Agent:
    """The user's agent in dom0. ``think`` runs before each answer."""

    answer: bytes = b"deny"
    think: Callable[[], object] = lambda: None
    asked: list[bytes] = field(default_factory=list)


@contextmanager
def agent_of(stock: Stock) -> Iterator[Agent]:
    agent = Agent()

    def serve(connection: socket.socket) -> None:
        agent.asked.append(b"".join(iter(lambda: connection.recv(65_536), b"")))
        agent.think()
        connection.sendall(agent.answer)

    with speaking(stock.services / "policy.Ask", serve):
        yield agent


def answered(trace: Trace) -> bytes | Failure:
    """The reply of qubesd to a call that got there by way of the socket."""
    assert (trace.status, trace.names[:2]) == (0, ["reply", "allowed"]), trace
    return parse_reply(trace.output)


def rows(trace: Trace) -> bytes:
    """The content of a reply that is no failure."""
    found = answered(trace)
    assert isinstance(found, bytes), found
    return found


def refused(trace: Trace) -> None:
    assert (trace.status, trace.steps) == (REFUSED, (("reply", (b"result=deny",)), ("refused", ()))), trace
