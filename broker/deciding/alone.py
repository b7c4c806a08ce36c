"""A decision where no policy daemon runs: policy, state and agents, all for one question."""

from __future__ import annotations

import argparse
import asyncio
import logging
from functools import partial
from pathlib import Path

from broker.agent import NOTIFY_PATIENCE, Agents
from broker.catalogue import catalogue
from broker.deciding.answering import DENY, Answering
from broker.deciding.questions import Question
from broker.deciding.stock_state import StockState
from broker.judge import PolicyInForce
from broker.prompter import Prompter
from policy_engine import CONFIGURED, LEGACY, RUNTIME, DirectorySource, Loader, Request


def decide_alone(options: argparse.Namespace) -> str:
    """The answer to the question that the options of ``qrexec-policy-exec`` ask."""
    logging.basicConfig(format="qrexec-policy-exec: %(levelname)s: %(message)s", level=logging.WARNING)
    request = Request.of(options.service, options.source, options.target)
    question = Question(request, options.assume_yes_for_ask, options.just_evaluate)
    directories = (RUNTIME, CONFIGURED) if options.path is None else (options.path,)
    loader = Loader(DirectorySource(), directories, LEGACY, partial(catalogue, enforced=False))
    policies = PolicyInForce(loader.load, keep_last_good=False)
    policies.reload()
    state = StockState(Path(options.qubesd_internal_socket_path))
    return asyncio.run(
        _answer(Answering(policies, state.world, Prompter(Agents(Path(options.agent_path)))), question)
    )


async def _answer(answering: Answering, question: Question) -> str:
    answer = answering.answer(question)
    if answer is not None and not isinstance(answer, str):
        answer = await answer
    await answering.close(NOTIFY_PATIENCE)
    return DENY if answer is None else answer
