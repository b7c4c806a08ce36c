"""``qrexec-policy-daemon`` with one flaw, which the first argument names: what a fuzzer has to find."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from broker.activation import NONE_GIVEN
from broker.agent import Agents
from broker.answering import Answering
from broker.judge import PolicyInForce
from broker.policy_daemon import arguments_of
from broker.policy_sockets import PolicySockets, Readers, evaluations, screen_evaluations
from broker.questions import LinesReader, Question, QuestionError
from broker.reload import policy_in_force
from broker.sockets import Access
from broker.stock_state import StockState
from policy_engine import DirectorySource, Loader, Request, World


class Lenient(LinesReader):
    """Takes what is no question for one by dom0."""

    def question(self) -> Question:
        try:
            return super().question()
        except QuestionError:
            return Question(Request.of("a.A", "dom0", "dom0"))


class Hasty(LinesReader):
    """Does not wait for the empty line."""

    def feed(self, untrusted_data: bytes | memoryview) -> bool:
        super().feed(untrusted_data)
        return True


class Leaking(LinesReader):
    """Forgets a descriptor now and then."""

    def question(self) -> Question:
        question = super().question()
        if question.just_evaluate:
            os.dup(0)
        return question


class Fragile(LinesReader):
    """Ends the daemon where a service has no name."""

    def question(self) -> Question:
        question = super().question()
        if not question.request.service:
            os._exit(3)
        return question


class Trusting(LinesReader):
    """Logs what it was sent as it is."""

    def question(self) -> Question:
        question = super().question()
        if question.request.source.startswith("a"):
            sys.stderr.write(f"INFO: asked by {question.request.source}\n")
        return question


READERS: dict[str, Readers] = {
    "lenient": Lenient,
    "hasty": Hasty,
    "leaking": Leaking,
    "fragile": Fragile,
    "trusting": Trusting,
}


class OldState(StockState):
    """Fetches the qubes once."""

    _kept: World | None = None

    async def world(self) -> World:
        if self._kept is None:
            self._kept = await super().world()
        return self._kept


def read_once(directories: Sequence[str]) -> PolicyInForce:
    policies = PolicyInForce(Loader(DirectorySource(), directories).load, keep_last_good=False)
    policies.reload()
    return policies


async def serve(flaw: str, options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    state = (OldState if flaw == "old-state" else StockState)(options.qubesd_socket_path)
    async with policy_in_force(options.policy_path, "/nowhere", keep_last_good=False) as reloader:
        policies = read_once(options.policy_path) if flaw == "old-policy" else reloader.policies
        sockets = PolicySockets(Answering(policies, state.world, Agents(options.agent_path)))
        access = Access(0o600)
        await sockets.open(options.eval_socket_path, evaluations, access, NONE_GIVEN)
        await sockets.open(options.gui_socket_path, screen_evaluations, access, NONE_GIVEN)
        await sockets.open(options.socket_path, READERS.get(flaw, LinesReader), access, NONE_GIVEN)
        await stop.wait()
        await sockets.close()


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    asyncio.run(serve(sys.argv[1], arguments_of(sys.argv[2:])))
