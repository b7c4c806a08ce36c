"""Evaluations, as qrexec hands them to ``policy.EvalSimple`` and ``policy.EvalGUI``: right ones and spoiled
ones."""

from __future__ import annotations

from functools import partial
from random import Random

from tools.fuzzing.ground import ARGUMENTS, NAMES, SERVICES, uuid_of
from tools.fuzzing.wire import LINE, SCREEN, SIMPLE, spoil_bytes


def evaluation(random: Random, right: bool) -> tuple[str, bytes]:
    """The socket, and what qrexec would hand to it."""
    socket = random.choice((SIMPLE, SCREEN))
    names = partial(random.choice, (*NAMES, "dom0"))
    service = f"{random.choice(SERVICES)}+{random.choice(ARGUMENTS)}"
    remote = "sys-gui" if random.random() < 0.8 else names()
    ends = [names(), names() if random.random() < 0.8 else random.choice(("@default", "@dispvm", "gone"))]
    words = [f"{socket}+{service}", remote, *random.choice(((), ("name", "dom0"), ("keyword", "adminvm")))]
    if right:
        return socket, " ".join(words).encode("ascii") + b"\0" + "\0".join(ends).encode("ascii")
    for _ in range(random.choice((0, 1, 1, 2))):
        _spoil_words(random, socket, words, ends)
    data = " ".join(words).encode("latin-1") + b"\0" + "\0".join(ends).encode("latin-1")
    for _ in range(random.choice((0, 0, 1, 2))):
        data = spoil_bytes(random, data)
    return socket, data


def _spoil_words(random: Random, socket: str, words: list[str], ends: list[str]) -> None:
    at, draw = random.randrange(len(ends)), random.randrange(6)
    if draw == 0:
        other = SIMPLE if socket == SCREEN else SCREEN
        words[0] = random.choice((socket, f"{socket}+", f"{socket}++x", f"{other}+a.A", f"{socket}a.A", ""))
    elif draw == 1:
        words[1:] = random.choice(
            ([], [""], ["", "sys-gui"], ["sys-gui", "", ""], ["\xe4"], ["sys-gui", "\xff"])
        )
    elif draw == 2:
        ends[at] = random.choice(
            (f"uuid:{uuid_of('work')}", "@dispvm:dvm", "@tag:t", "a b", "\xe4", "", "a\n")
        )
    elif draw == 3:
        ends[at] = "n" * random.choice((30, 31, 32, 62, 63, 64, 95, 96, 97, 5_000))
    elif draw == 4:
        ends[:] = random.choice((ends[:1], [*ends, "x"], [*ends, ""], ["", *ends]))
    else:
        spare = LINE - sum(len(word) + 1 for word in words)
        words.append("w" * (spare + random.choice((-1, 0, 1, 70_000)) if random.random() < 0.2 else 300))
