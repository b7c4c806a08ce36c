"""``qrexec-policy-daemon`` as a process in a stock dom0: its state is fetched, its policy comes and goes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from broker.deciding.state import StateError
from broker.deciding.stock_state import MAX_DOCUMENT, StockState
from broker.sockets import short_path
from policy_engine import World
from tests.broker.alone_rig import (
    PATIENCE,
    Alone,
    Manner,
    StockQubesd,
    alone,
    lay_out,
    qubesd_at,
    ready,
    right,
    start,
    until_true,
    uuid,
)
from tests.broker.operation.strict_exposition import read_strictly
from tests.broker.policy_rig import exchange

POLICY = "my.Open * @tag:red vault allow\nmy.Ask * work vault ask\n"
OPEN = ("work", "vault", "my.Open")

Story = Callable[[Alone], Awaitable[None]]


def tell(root: Path, story: Story, policy: str | None = POLICY) -> None:
    """What happens to a daemon with two qubes, ``work``, which has the tag ``red``, and ``vault``."""

    async def run() -> None:
        async with alone(root, policy) as daemon:
            daemon.qubesd.qube("work", 1, tags=["red"], guivm="dom0", icon="appvm-red")
            daemon.qubesd.qube("vault", 2, icon="appvm-black")
            await story(daemon)

    asyncio.run(run())


def test_it_answers_with_what_a_stock_qubesd_tells(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        assert await daemon.ask(*OPEN) == (
            "user=DEFAULT\nresult=allow\ntarget=vault\n"
            f"target_uuid=uuid:{uuid(2)}\nautostart=True\nrequested_target=vault"
        )
        assert await daemon.ask("vault", "work", "my.Open") == "result=deny"
        daemon.agent.say("allow:vault")
        assert "result=allow" in await daemon.ask("work", "vault", "my.Ask")
        question = daemon.agent.collect()[-1]
        assert question["params"]["icons"] == {
            "dom0": "",
            "vault": "appvm-black",
            "work": "appvm-red",
        }
        header = "policy.EvalSimple+my.Open anybody\0work\0vault".encode("ascii")
        assert (
            await exchange(tmp_path / "etc/qubes-rpc/policy.EvalSimple", header, end=True)
            == b"result=allow\n"
        )

    tell(tmp_path, story)


def test_it_tells_what_it_does(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        await daemon.ask(*OPEN)
        scrape = b"GET /metrics HTTP/1.0\r\n\r\n"
        answer = await exchange(tmp_path / "run/qubes/policy-metrics.sock", scrape, end=False)
        head, _, document = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4")
        figures = read_strictly(document.decode())
        assert figures["qubesd_qrexec_answers_total", frozenset({("answer", "allow")})] == 1
        assert figures["qubesd_policy_rules", frozenset()] == 2

    tell(tmp_path, story)


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param("broken\n", id="an-error-in-a-file"),
        pytest.param(None, id="no-directory"),
        pytest.param("!include gone\n", id="an-include-that-is-not-there"),
    ],
)
def test_without_a_policy_it_serves_and_denies_until_there_is_one(tmp_path: Path, policy: str | None) -> None:
    async def story(daemon: Alone) -> None:
        assert await daemon.ask(*OPEN) == "result=deny"
        (tmp_path / "etc/qubes/policy.d").mkdir(parents=True, exist_ok=True)
        daemon.write(POLICY)
        await daemon.comes_to("allow", *OPEN)
        daemon.write("broken again\n", "20-more.policy")
        await daemon.comes_to("deny", *OPEN)
        (tmp_path / "etc/qubes/policy.d/20-more.policy").unlink()
        await daemon.comes_to("allow", *OPEN)

    tell(tmp_path, story, policy)


def test_a_change_before_a_question_counts_for_it(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        work = daemon.qubesd.domains["work"]
        for number in range(50):
            work["tags"] = [] if number % 2 else ["red"]
            assert await daemon.decides(*OPEN) == ("deny" if number % 2 else "allow"), number
        del daemon.qubesd.domains["work"]
        assert await daemon.decides(*OPEN) == "deny"

    tell(tmp_path, story)


def test_many_questions_share_a_fetch_that_began_after_all_of_them(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        going, held = asyncio.Event(), asyncio.Event()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
            going.set()
            await held.wait()
            await right(reader, writer, answer)

        daemon.qubesd.manner = hold
        first = asyncio.create_task(daemon.decides(*OPEN))
        await going.wait()
        # What the first fetch brings is settled; whatever comes now must not be judged by it.
        daemon.qubesd.manner = right
        daemon.qubesd.domains["work"]["tags"] = []
        later = [asyncio.create_task(daemon.decides(*OPEN)) for _ in range(200)]
        await until_true(lambda: asyncio.to_thread(lambda: daemon.descriptors() > 200))
        held.set()
        assert await first == "allow"
        assert set(await asyncio.gather(*later)) == {"deny"}
        assert daemon.qubesd.asked < 20

    tell(tmp_path, story)


async def exception(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(b"2\0QubesException\0\0internal error: %s\0evil\nlines\0")


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(os.urandom(10_000))


async def not_json(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(b"0\0{'domains': {}}")


async def not_domains(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(b'0\0{"domains": {"work": 1}}')


async def nested(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(b"0\0" + b"[" * 200_000)


async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(answer[: len(answer) // 2])


async def kind_alone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(b"0")


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    """As a qubesd does that ends amid a call."""


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(answer[:10])
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize(
    ("manner", "logged"),
    [
        pytest.param(exception, "qubesd answers with 'QubesException'", id="exception"),
        pytest.param(garbage, "qubesd breaks off: neither content nor an error", id="garbage"),
        pytest.param(not_json, "the description of the qubes cannot be used: ", id="not-json"),
        pytest.param(not_domains, "domains: 'work': expected an object", id="not-domains"),
        pytest.param(nested, "the description of the qubes cannot be used: ", id="nested"),
        pytest.param(half, "the description of the qubes cannot be used: ", id="half"),
        pytest.param(kind_alone, "qubesd breaks off: ", id="kind-alone"),
        pytest.param(closing, "qubesd breaks off: no reply", id="closing"),
        pytest.param(reset, "the description of the qubes cannot be used: |qubesd breaks off", id="reset"),
    ],
)
def test_a_qubesd_that_answers_badly_makes_it_deny(tmp_path: Path, manner: Manner, logged: str) -> None:
    async def story(daemon: Alone) -> None:
        assert await daemon.decides(*OPEN) == "allow"
        daemon.qubesd.manner = manner
        for _ in range(3):
            assert await daemon.ask(*OPEN) == "result=deny"
        daemon.qubesd.manner = right
        assert await daemon.decides(*OPEN) == "allow"
        assert re.search(f"denied: .*(?:{logged})", daemon.said()), daemon.said()
        assert "\nlines" not in daemon.said()

    tell(tmp_path, story)


async def byte_by_byte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    for part in (answer[:1], answer[1:2], answer[2:3], answer[3:]):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.01)


def test_an_answer_in_pieces_is_one_answer(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        daemon.qubesd.manner = byte_by_byte
        assert await daemon.decides(*OPEN) == "allow"

    tell(tmp_path, story)


def test_while_qubesd_is_away_it_denies(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        place = tmp_path / "run/qubesd.internal.sock"
        place.rename(tmp_path / "aside")
        assert await daemon.ask(*OPEN) == "result=deny"
        with socket.socket(socket.AF_UNIX) as stale, short_path(place) as name:
            stale.bind(name)
        assert await daemon.ask(*OPEN) == "result=deny"
        (tmp_path / "aside").rename(place)
        assert await daemon.decides(*OPEN) == "allow"
        assert "No such file or directory" in daemon.said()
        assert "Connection refused" in daemon.said()

    tell(tmp_path, story)


def fetching(root: Path, manner: Manner, patience: float) -> list[World | StateError]:
    """What several questions are told that come at the same time, and one that comes later."""
    lay_out(root)
    qubesd = StockQubesd()
    qubesd.manner = manner

    async def one(state: StockState) -> World | StateError:
        try:
            return await state.world()
        except StateError as error:
            return error

    async def run() -> list[World | StateError]:
        async with asyncio.timeout(PATIENCE), qubesd_at(root, qubesd):
            state = StockState(root / "run/qubesd.internal.sock", patience)
            told = await asyncio.gather(*(one(state) for _ in range(5)))
            return [*told, await one(state)]

    return asyncio.run(run())


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(b"0\0")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(b"0\0")
    while True:
        writer.write(b" " * 4_000_000)
        await writer.drain()


@pytest.mark.parametrize(
    ("manner", "patience", "why"),
    [
        pytest.param(trickle, 0.3, "no answer within 0.3 s", id="trickle"),
        pytest.param(endless, PATIENCE, f"more than {MAX_DOCUMENT} bytes", id="endless"),
    ],
)
def test_what_qubesd_may_take_is_bounded(tmp_path: Path, manner: Manner, patience: float, why: str) -> None:
    for told in fetching(tmp_path, manner, patience):
        assert isinstance(told, StateError)
        assert why in str(told)


def test_a_question_waits_for_a_silent_qubesd_no_longer_than_it_is_given(tmp_path: Path) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
        await asyncio.sleep(1.0)

    for told in fetching(tmp_path, mute, 0.1):
        assert isinstance(told, StateError)
        assert "no answer within 0.1 s" in str(told)


def test_sighup_has_the_policy_read_again(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        for _ in range(5):
            daemon.process.send_signal(signal.SIGHUP)
            assert await daemon.decides(*OPEN) == "allow"
        daemon.write("my.Open * * * deny\n")
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.comes_to("deny", *OPEN)

    tell(tmp_path, story)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_told_to_stop_it_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    async def story(daemon: Alone) -> None:
        async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
            await asyncio.sleep(PATIENCE)

        daemon.qubesd.manner = never
        with short_path(daemon.socket) as name:
            idle, ours = await asyncio.open_unix_connection(name)
        asked = asyncio.create_task(daemon.ask(*OPEN))
        await until_true(lambda: asyncio.to_thread(lambda: daemon.qubesd.asked > 0))
        assert await daemon.stop(number) == 0
        # Without an answer the C daemon runs its fallback; nobody is left waiting.
        assert await idle.read() == b""
        ours.close()
        assert await asked == ""
        assert sorted(os.listdir(tmp_path / "run/qubes")) == ["policy.d"]
        assert sorted(os.listdir(tmp_path / "etc/qubes-rpc")) == ["policy.Ask", "policy.Notify"]

    tell(tmp_path, story)


def test_a_second_daemon_on_the_same_paths_does_not_start(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        second = start(tmp_path)
        assert await asyncio.to_thread(second.wait, PATIENCE) == 1
        assert "another daemon answers on this socket" in daemon.said()
        assert await daemon.decides(*OPEN) == "allow"

    tell(tmp_path, story)


def test_it_takes_over_from_one_that_was_killed(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        daemon.process.kill()
        await asyncio.to_thread(daemon.process.wait)
        assert daemon.socket.is_socket()
        (tmp_path / "errors").unlink()
        daemon.process = start(tmp_path)
        try:
            await ready(daemon)
            assert await daemon.decides(*OPEN) == "allow"
        finally:
            assert await daemon.stop() == 0

    tell(tmp_path, story)


def test_something_else_in_the_way_of_a_socket_stays(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "run/qubes/policy.sock").write_text("mine")
    assert start(tmp_path).wait(PATIENCE) == 1
    assert (tmp_path / "run/qubes/policy.sock").read_text() == "mine"
    said = (tmp_path / "errors").read_text()
    assert said.endswith(f"{tmp_path}/run/qubes/policy.sock: this is in the way of a socket\n")


def test_only_dom0_may_connect(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        for name in (
            "run/qubes/policy.sock",
            "run/qubes/policy-status.sock",
            "etc/qubes-rpc/policy.EvalSimple",
            "etc/qubes-rpc/policy.EvalGUI",
        ):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o660, name

    tell(tmp_path, story)


def test_descriptors_and_memory_stay_within_bounds(tmp_path: Path) -> None:
    async def story(daemon: Alone) -> None:
        for number in range(3, 1_000):
            daemon.qubesd.qube(f"qube-{number}", number, tags=["blue", "green"], guivm="dom0")
        assert await daemon.decides(*OPEN) == "allow"
        descriptors = daemon.descriptors()
        for number in range(100):
            daemon.qubesd.domains["qube-3"]["power_state"] = "Running" if number % 2 else "Halted"
            asked = [daemon.decides(*OPEN) for _ in range(5)]
            assert set(await asyncio.gather(*asked)) == {"allow"}
            if number == 20:
                memory = daemon.memory()
        await until_true(lambda: asyncio.to_thread(lambda: daemon.descriptors() <= descriptors))
        assert daemon.memory() < 100
        assert daemon.memory() < memory + 10

    tell(tmp_path, story)
