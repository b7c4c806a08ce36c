"""The C program that plays the qrexec daemon, held to what the stock one was seen to do.

Its judgement is what other tests rely on: what it does not notice, they cannot find.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.broker.rig import speaking
from tests.c.stock import FAILED, NOT_FOUND, REFUSED, Stock, Trace, compiled, leave_stale, script

ALLOW = b"user=DEFAULT\nresult=allow\ntarget=work\nautostart=False\nrequested_target=work"
DENY = b"result=deny"
DISPOSABLE = ALLOW.replace(b"target=work\n", b"target=@dispvm:dvm\n", 1)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("c"))


@pytest.fixture
def stock(program: Path, tmp_path: Path) -> Stock:
    stock = Stock(program, tmp_path)
    stock.policy.parent.mkdir(parents=True)
    stock.services.mkdir(parents=True)
    stock.install("false")
    return stock


def asked(path: Path, answer: bytes) -> AbstractContextManager[list[bytes]]:
    """A policy daemon that takes the request whole and says this; gives the requests."""

    def serve(connection: socket.socket, requests: list[bytes]) -> None:
        request = b""
        while b"\n\n" not in request:
            request += connection.recv(65_536)
        with pytest.raises(BlockingIOError):  # it goes on listening, and has not half-closed
            connection.recv(1, socket.MSG_DONTWAIT)
        requests.append(request)
        connection.sendall(answer)

    return kept(path, serve)


def called(path: Path, *answers: bytes) -> AbstractContextManager[list[bytes]]:
    """A service of dom0 that reads each call to its end and says these, in turn; gives the calls."""
    left = list(answers)

    def serve(connection: socket.socket, calls: list[bytes]) -> None:
        calls.append(b"".join(iter(lambda: connection.recv(65_536), b"")))
        connection.sendall(left.pop(0))

    return kept(path, serve)


@contextmanager
def kept(path: Path, serve: Callable[[socket.socket, list[bytes]], None]) -> Iterator[list[bytes]]:
    """Serve, and keep what ``serve`` puts into its list."""
    found: list[bytes] = []
    with speaking(path, lambda connection: serve(connection, found)):
        yield found


def run(stock: Stock, answer: bytes) -> Trace:
    with asked(stock.policy, answer):
        return stock.call("alice", "work", "a.B+c")


@pytest.mark.parametrize(
    ("words", "options", "sent"),
    [
        pytest.param(("", "dom0", "a.B"), (), (b"", b"dom0", b"a.B"), id="plain"),
        pytest.param(("", "", "a.B+"), (), (b"", b"", b"a.B+"), id="empty-target"),
        pytest.param(("", "@default", "a.B+x+y"), (), (b"", b"@default", b"a.B+x+y"), id="keyword"),
        pytest.param(("", "$dispvm:a", "a$B@"), (), (b"", b"@dispvm:a", b"a_B_"), id="dollar"),
        pytest.param(("", "a+b=c\n", "a=b c"), (), (b"", b"a_b_c_", b"a_b_c"), id="cleaned"),
        pytest.param(("", b"\xff\x80", b"\xc3\xa9:"), (), (b"", b"__", b"___"), id="not-ascii"),
        pytest.param(("far$\n", "uuid:0-1", ""), (), (b"far@_", b"uuid:0-1", b""), id="requested-source"),
        pytest.param(("", 70 * "q", 70 * "s"), (), (b"", 63 * b"q", 70 * b"s"), id="cut"),
        pytest.param(("", "dom0", 70_000 * "s"), (), (b"", b"dom0", 61_440 * b"s"), id="cut-service"),
        pytest.param(("", "dom0", "a.B"), ("-o",), (None, b"dom0", b"a.B"), id="of-old"),
        pytest.param(("", "dom0", "a.B"), ("-w20",), (b"", b"dom0", b"a.B"), id="silent-at-first"),
    ],
)
def test_the_request_is_the_stock_one(
    stock: Stock,
    words: tuple[str, str | bytes, str | bytes],
    options: tuple[str, ...],
    sent: tuple[bytes | None, bytes, bytes],
) -> None:
    requested, target, service = sent
    with asked(stock.policy, DENY) as requests:
        trace = stock.call("alice", words[1], words[2], *options, requested=words[0])
    line = b"" if requested is None else b"requested_source=%s\n" % requested
    assert requests == [
        b"source=alice\n%sintended_target=%s\nservice_and_arg=%s\n\n" % (line, target, service)
    ]
    assert (trace.status, trace.names) == (REFUSED, ["reply", "refused"])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(b"", b"empty", id="empty"),
        pytest.param(b"\n", b"a blank line", id="only-a-line-end"),
        pytest.param(ALLOW.replace(b"\n", b"\n\n", 1), b"a blank line", id="blank-line"),
        pytest.param(b"\n" + ALLOW, b"a blank line", id="blank-line-first"),
        pytest.param(ALLOW + b"\n\n", b"a blank line", id="two-final-newlines"),
        pytest.param(DENY + b"\n\n", b"a blank line", id="two-final-newlines-of-a-deny"),
        pytest.param(ALLOW.replace(b"\n", b"\r\n"), b"neither allow nor deny", id="crlf"),
        pytest.param(DENY + b"\r\n", b"neither allow nor deny", id="crlf-of-a-deny"),
        pytest.param(ALLOW + b"\0", b"a NUL", id="nul"),
        pytest.param(DENY + b"\0", b"a NUL", id="nul-of-a-deny"),
        pytest.param(ALLOW + b"\nhello", b"a line without '='", id="no-equals"),
        pytest.param(b"deny", b"a line without '='", id="a-word"),
        pytest.param(ALLOW + b"\nuser=DEFAULT", b"a key twice", id="user-twice"),
        pytest.param(DENY + b"\n" + DENY, b"a key twice", id="result-twice"),
        pytest.param(ALLOW + b"\nservice=a\nservice=a", b"a key twice", id="service-twice"),
        pytest.param(b"x=y", b"no result", id="no-result"),
        pytest.param(b"result=allow", b"an allow without one of its keys", id="allow-alone"),
        *(
            pytest.param(
                b"\n".join(line for line in ALLOW.split(b"\n") if not line.startswith(key + b"=")),
                b"an allow without one of its keys",
                id=f"no-{key.decode()}",
            )
            for key in (b"user", b"target", b"requested_target", b"autostart")
        ),
        pytest.param(ALLOW + b"\nx=" + (4_093 - len(ALLOW)) * b"x", b"too long", id="4096-bytes"),
        pytest.param(ALLOW + b"\nx=" + 100_000 * b"x", b"too long", id="far-too-long"),
        *(
            pytest.param(
                ALLOW.replace(b"=False", b"=" + value),
                b"autostart is neither True nor False",
                id=f"autostart-{value.decode()}",
            )
            for value in (b"true", b"", b"yes", b"True ")
        ),
        pytest.param(ALLOW.replace(b"allow", b"Allow"), b"neither allow nor deny", id="Allow"),
        pytest.param(ALLOW.replace(b"allow", b"allow "), b"neither allow nor deny", id="blank-after-allow"),
        pytest.param(b"result=", b"neither allow nor deny", id="no-word"),
        *(
            pytest.param(DENY + b"\n" + more, b"a deny with a key of an allow", id=f"deny-{more.decode()}")
            for more in (b"user=DEFAULT", b"target=work", b"requested_target=", b"autostart=True")
        ),
    ],
)
def test_a_malformed_reply_is_noticed_and_leads_to_the_fallback(
    stock: Stock, answer: bytes, why: bytes
) -> None:
    trace = run(stock, answer)
    assert trace.words("malformed") == [(why,)]
    assert (trace.status, trace.names) == (REFUSED, ["reply", "malformed", "fallback", "refused"])
    stock.install(f"printf %s {shlex.quote(ALLOW.decode())}")
    assert run(stock, answer).status == 0


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(ALLOW, 0, id="allow"),
        pytest.param(ALLOW + b"\n", 0, id="final-newline"),
        pytest.param(b"\n".join(reversed(ALLOW.split(b"\n"))), 0, id="any-order"),
        pytest.param(ALLOW + b"\nunknown=key", 0, id="unknown-key"),
        pytest.param(ALLOW + b"\nx=" + (4_092 - len(ALLOW)) * b"x", 0, id="4095-bytes"),
        pytest.param(ALLOW.replace(b"target=work", b"target=a b"), 0, id="values-are-not-checked"),
        pytest.param(DENY, REFUSED, id="deny"),
        pytest.param(DENY + b"\n", REFUSED, id="deny-newline"),
        pytest.param(DENY + b"\nservice=x\nreason=none", REFUSED, id="deny-with-other-keys"),
    ],
)
def test_a_good_reply_is_obeyed_without_the_fallback(stock: Stock, answer: bytes, status: int) -> None:
    trace = run(stock, answer)
    assert trace.status == status
    assert not {"malformed", "fallback"} & set(trace.names)


@pytest.mark.parametrize(
    ("printed", "ends", "status"),
    [
        pytest.param(ALLOW + b"\n", 0, 0, id="allow"),
        pytest.param(ALLOW, 1, REFUSED, id="allow-that-fails"),
        pytest.param(DENY, 0, REFUSED, id="deny"),
        pytest.param(b"", 0, REFUSED, id="nothing"),
        pytest.param(b"result=allow", 0, REFUSED, id="malformed"),
        pytest.param(ALLOW + b"\n\n", 0, REFUSED, id="one-line-end-too-many"),
    ],
)
def test_without_a_daemon_the_fallback_is_obeyed(
    stock: Stock, printed: bytes, ends: int, status: int
) -> None:
    (stock.root / "printed").write_bytes(printed)
    told = shlex.quote(str(stock.root / "told"))
    script(
        stock.fallback,
        f"printf '<%s>' \"$@\" > {told}; cat {stock.root}/printed; cat > /dev/null; exit {ends}",
    )
    trace = stock.call("alice", "", "a.B+c", requested="far", payload=b"not for the fallback")
    assert trace.words("lost") == [(b"connect", b"No such file or directory")]
    assert trace.words("fallback") == [(b"%d" % ends, printed)]
    assert trace.status == status
    assert (stock.root / "told").read_text() == "<--><alice><><a.B+c>"


def test_the_source_of_a_malformed_reply_leaks_into_what_the_fallback_allows(stock: Stock) -> None:
    stock.install(f"printf %s {shlex.quote(ALLOW.decode())}")
    trace = run(stock, b"policy_source=far\nresult=allow")
    assert trace.words("called") == [(b"work", b"DEFAULT:QUBESRPC a.B+c far")]
    assert run(stock, b"result=allow").words("called") == [(b"work", b"DEFAULT:QUBESRPC a.B+c alice")]


def test_a_stale_socket_leads_to_the_fallback(stock: Stock) -> None:
    leave_stale(stock.policy)
    trace = stock.call("alice", "work", "a.B")
    assert trace.words("lost") == [(b"connect", b"Connection refused")]
    assert (trace.status, trace.names) == (REFUSED, ["lost", "fallback", "refused"])


def test_a_daemon_that_closes_with_bytes_unread_loses_even_a_good_reply(stock: Stock) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(10)
        connection.sendall(ALLOW)

    with speaking(stock.policy, serve):
        trace = stock.call("alice", "work", "a.B")
    assert trace.words("lost") == [(b"read", b"Connection reset by peer")]
    assert (trace.status, trace.names) == (REFUSED, ["lost", "fallback", "refused"])


TO_DOM0 = ALLOW.replace(b"target=work\n", b"target=dom0\n", 1).replace(b"=work", b"=dom0")


def to_dom0(stock: Stock, service: str, payload: bytes = b"", answer: bytes = TO_DOM0) -> Trace:
    with asked(stock.policy, answer):
        return stock.call("alice", "dom0", service, payload=payload)


@pytest.mark.parametrize(
    ("service", "requested", "header"),
    [
        pytest.param("a.B", b"dom0", b"a.B+ alice name dom0", id="no-argument"),
        pytest.param("a.B+", b"dom0", b"a.B+ alice name dom0", id="empty-argument"),
        pytest.param("a.B+x+y", b"dom0", b"a.B+x+y alice name dom0", id="argument"),
        pytest.param("a.B", b"@adminvm", b"a.B+ alice keyword adminvm", id="keyword"),
        pytest.param("a.B", b"a b", b"a.B+ alice name a b", id="not-checked"),
    ],
)
def test_a_service_of_dom0_gets_header_and_payload(
    stock: Stock, service: str, requested: bytes, header: bytes
) -> None:
    payload = bytes(range(256)) * 2_000
    with called(stock.services / "a.B", b"answer") as calls:
        trace = to_dom0(
            stock,
            service,
            payload,
            TO_DOM0.replace(b"=dom0", b"=" + requested).replace(b"\ntarget=" + requested, b"\ntarget=dom0"),
        )
    assert calls == [header + b"\0" + payload]
    assert (trace.status, trace.output) == (0, b"answer")


def test_a_service_of_its_own_for_an_argument_comes_first(stock: Stock) -> None:
    with called(stock.services / "a.B", b"any"), called(stock.services / "a.B+x", b"own"):
        assert to_dom0(stock, "a.B+x").output == b"own"
    with called(stock.services / "a.B", b"any"):
        assert to_dom0(stock, "a.B+x").output == b"any"


def test_a_service_that_is_not_there_or_is_dead(stock: Stock) -> None:
    assert to_dom0(stock, "a.B").status == NOT_FOUND
    leave_stale(stock.services / "a.B")
    assert to_dom0(stock, "a.B").status == FAILED
    (stock.services / "a.C").touch()
    assert to_dom0(stock, "a.C").status == FAILED


def test_a_full_close_ends_the_call_with_payload_unread(stock: Stock) -> None:
    with speaking(stock.services / "a.B", lambda connection: connection.sendall(connection.recv(21)[:5])):
        assert to_dom0(stock, "a.B", payload=b"x" * 10_000_000).output == b"a.B+ "


def test_a_service_that_half_closes_is_waited_for(stock: Stock) -> None:
    """The call lasts until the caller's input ends, though the answer has ended long before."""
    rest: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"answer")
        connection.shutdown(socket.SHUT_WR)
        rest.append(b"".join(iter(lambda: connection.recv(65_536), b"")))

    with speaking(stock.services / "a.B", serve):
        trace = to_dom0(stock, "a.B", payload=b"x" * 1_000_000)
    assert (trace.status, trace.output) == (0, b"answer")
    assert rest == [b"a.B+ alice name dom0\0" + b"x" * 1_000_000]


AUTOSTART = ALLOW.replace(b"False", b"True")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(b"0\0", 0, id="started"),
        pytest.param(b"0\0more", 0, id="more"),
        pytest.param(b"2\0QubesVMNotHaltedError\0\0runs\0", 0, id="not-halted"),
        pytest.param(b"2\0QubesException\0\0no\0", FAILED, id="another-exception"),
        pytest.param(b"2\0QubesVMNotHaltedErrors\0\0no\0", FAILED, id="another-name"),
        pytest.param(b"", FAILED, id="nothing"),
        pytest.param(b"1\0", FAILED, id="an-event"),
    ],
)
def test_a_target_is_started_first(stock: Stock, answer: bytes, status: int) -> None:
    reply = AUTOSTART + b"\ntarget_uuid=uuid:1"
    with asked(stock.policy, reply), called(stock.root / "run/qubesd.sock", answer) as calls:
        trace = stock.call("alice", "work", "a.B")
    assert calls == [b"admin.vm.Start+ dom0 name uuid:1\0"]
    assert trace.status == status
    assert trace.words("called") == ([] if status else [(b"uuid:1", b"DEFAULT:QUBESRPC a.B alice")])


def test_what_is_not_to_be_started_is_called_as_it_is(stock: Stock) -> None:
    reply = ALLOW + b"\nservice=c.D+e\npolicy_source=far"
    with asked(stock.policy, reply), called(stock.root / "run/qubesd.sock") as calls:
        trace = stock.call("alice", "work", "a.B")
    assert calls == []
    assert trace.words("called") == [(b"work", b"DEFAULT:QUBESRPC c.D+e far")]


@pytest.mark.parametrize(
    ("more", "answers", "calls", "status"),
    [
        pytest.param(b"", (b"0\0disp1", b"0\0", b"0\0"), (b"dvm\0", b"disp1\0", b"disp1\0"), 0, id="by-name"),
        pytest.param(
            b"\ntarget_uuid=@dispvm:uuid:1",
            (b"0\0uuid:2", b"0\0", b"0\0"),
            (b"uuid:1\0uuid", b"uuid:2\0", b"uuid:2\0"),
            0,
            id="by-uuid",
        ),
        pytest.param(
            b"", (b"0\0disp1", b"2\0E\0\0\0", b""), (b"dvm\0", b"disp1\0", b"disp1\0"), FAILED, id="no-start"
        ),
        pytest.param(b"", (b"2\0E\0\0\0",), (b"dvm\0",), FAILED, id="not-made"),
        pytest.param(b"", (b"0\0",), (b"dvm\0",), FAILED, id="no-name"),
        pytest.param(b"", (b"0\0a\0b",), (b"dvm\0",), FAILED, id="nul-in-the-name"),
        pytest.param(
            b"\ntarget_uuid=@dispvm:uuid:1", (b"0\0disp1",), (b"uuid:1\0uuid",), FAILED, id="no-uuid"
        ),
    ],
)
def test_a_disposable_lives_for_its_call(
    stock: Stock, more: bytes, answers: tuple[bytes, ...], calls: tuple[bytes, ...], status: int
) -> None:
    with asked(stock.policy, DISPOSABLE + more), called(stock.root / "run/qubesd.sock", *answers) as made:
        trace = stock.call("alice", "@dispvm", "a.B")
    verbs = ("CreateDisposable", "Start", "Kill")
    assert made == [
        b"admin.vm.%s+ dom0 name " % verb.encode("ascii") + words
        for verb, words in zip(verbs, calls, strict=False)
    ]
    assert trace.status == status
    assert ("called" in trace.names) == (status == 0)
