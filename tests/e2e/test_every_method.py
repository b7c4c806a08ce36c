"""Every method there is, called on real sockets: once it is done, once it is refused, and never in silence.

A qube that the policy allows everything makes the calls over its own socket; the internal calls are dom0's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import call, connect, send_all
from broker.wire import Failure, encode_call, parse_reply
from qubesd.api.call import Call
from qubesd.api.table import INTERNAL, METHODS
from tests.broker.rig import PATIENCE, Daemon, exchange, serving, take
from tests.e2e.rows import devices, qubes, services, settings, storage
from tests.e2e.rows.row import Row, words

POLICY = "* * caller @adminvm allow target=dom0\n* * caller @anyvm allow target=dom0\n"
SYSTEM = """\
admin.vm.Create.TemplateVM dom0 name=tmpl label=black
admin.property.Set+default_template dom0 tmpl
admin.vm.Create.AppVM dom0 name=dvm label=red
admin.vm.property.Set+template_for_dispvms dvm True
admin.vm.Create.AppVM dom0 name=kept-off label=red
admin.vm.feature.Set+prohibit-start kept-off for the test
admin.vm.Create.StandaloneVM dom0 name=caller label=red
admin.vm.Start caller
"""
INTERNAL_ROWS = [
    Row(
        "internal.GetSystemInfo dom0",
        r'\{"domains": \{"dom0": .*\}\}',
        "internal.GetSystemInfo {q}",
        "ProtocolError",
    ),
]
# A row of a method that is not there yet waits for it.
ALL = [*qubes.ROWS, *settings.ROWS, *storage.ROWS, *services.ROWS, *devices.ROWS, *INTERNAL_ROWS]
ROWS = [row for row in ALL if row.service in METHODS or row.service in INTERNAL]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("daemon")
    services.furnish(root)
    with serving(root, POLICY, f'visibility = "strict"\n{devices.furnish(root)}') as daemon:
        for line in SYSTEM.splitlines():
            service, argument, target, payload = words(line)
            call(daemon.socket, service, target, argument, payload, timeout=PATIENCE)
        devices.announce(root)
        yield daemon


def test_every_method_has_a_row() -> None:
    assert Counter(row.service for row in ROWS) == Counter([*METHODS, *INTERNAL])


@pytest.mark.parametrize("row", [pytest.param(row, id=row.service) for row in ROWS])
def test_a_method_is_done_and_refused(daemon: Daemon, row: Row) -> None:
    names = {"q": f"q-{ROWS.index(row)}", "root": str(daemon.root)}
    if "{q}" in f"{row.call} {row.wrong}":
        daemon.create(names["q"], klass=row.klass)
    path = _door(daemon, row.service)
    for line in row.before:
        service, argument, target, payload = words(line, **names)
        last = call(path, service, target, argument, payload, timeout=PATIENCE)
        names["last"] = last.decode("utf-8")
    refused = parse_reply(exchange(path, _request(row.wrong, names)))
    assert isinstance(refused, Failure), refused
    assert refused.kind == row.error, refused
    assert len(refused.message) > 5, "says nothing of what is wrong"
    if row.stream:
        with connect(path, PATIENCE) as connection:
            send_all(connection, _request(row.call, names))
            assert take(connection, len(row.answer)) == row.answer.encode("ascii")
    else:
        done = parse_reply(exchange(path, _request(row.call, names)))
        if row.refused:
            assert isinstance(done, Failure), done
            assert done.kind == row.refused
            return
        assert isinstance(done, bytes), done
        assert re.fullmatch(row.answer.replace("{q}", names["q"]), done.decode("utf-8")), done

    for line in row.after:
        service, argument, target, payload = words(line, **names)
        call(path, service, target, argument, payload, timeout=PATIENCE)


HOSTILE = (b"", b"x", b"%s%n", b"../../etc", b"\xff\xfe", b"a\nb\n", b"=", b"-1", b"9" * 40, b"a" * 60_000)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.service) for row in ROWS if not row.stream])
def test_nothing_is_answered_with_silence(daemon: Daemon, row: Row) -> None:
    qube = f"s-{ROWS.index(row)}"
    daemon.create(qube, klass=row.klass)
    path = _door(daemon, row.service)
    argument = words(row.call, q=qube).argument
    for target in (qube, "dom0"):
        for untrusted_argument in (argument, "", "%s", "..", "a+b+c", "_", "-1"):
            for untrusted_payload in HOSTILE if untrusted_argument == argument else HOSTILE[:3]:
                untrusted = Call(row.service, untrusted_argument, "dom0", target, untrusted_payload)
                reply = exchange(path, encode_call(untrusted))
                assert reply.startswith((b"0\0", b"2\0")), untrusted
                if reply.startswith(b"2\0"):
                    assert _read_as_stock_does(reply), untrusted


def _read_as_stock_does(reply: bytes) -> str:
    """The text of an error as the stock client makes it, which formats all but two classes, values or not."""
    assert re.fullmatch(rb"2\0\w+\0\0[ -~]*\0", reply), "no fields, and nothing that is not printable"
    _, kind, _, text, _ = reply.decode("ascii").split("\0")
    return text if kind in ("ProtocolError", "PermissionDenied") else text % ()


def _request(line: str, names: dict[str, str]) -> bytes:
    service, argument, target, payload = words(line, **names)
    return encode_call(Call(service, argument, "dom0", target, payload))


def _door(daemon: Daemon, service: str) -> Path:
    return daemon.root / "run/qubesd.internal.sock" if service in INTERNAL else daemon.channel("caller")
