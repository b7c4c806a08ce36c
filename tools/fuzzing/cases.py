"""What is sent: right requests, spoiled ones, noise, and ways to break a connection off."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import pairwise
from random import Random

from tools.fuzzing.ground import ARGUMENTS, NAMES, SERVICES, uuid_of

POLICY = "policy.sock"
SIMPLE = "policy.EvalSimple"
SCREEN = "policy.EvalGUI"
SOCKETS = (POLICY, SIMPLE, SCREEN)

LINE = 65_536
"""Bytes that a line, and the header of an evaluation, may have at most."""


class Ending(Enum):
    """What the client does when it has sent everything."""

    WAIT = "wait"
    HALF_CLOSE = "half-close"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Case:
    """One connection.

    Attributes:
        kind: what it is counted as.
        pieces: what is sent, one send for each.
        pause: seconds between two pieces.
        hold: seconds that a client stays that has no answer to wait for.
    """

    kind: str
    socket: str
    pieces: tuple[bytes, ...]
    ending: Ending
    pause: float = 0.0
    hold: float = 0.0

    @property
    def sent(self) -> bytes:
        return b"".join(self.pieces)


def case(seed: int, number: int) -> Case:
    """Case ``number``, which follows from the seed and the number alone."""
    random = Random(f"{seed}/case/{number}")
    draw = random.random()
    if draw < 0.25:
        kind, socket, data = "request", POLICY, _joined(_lines(random))
    elif draw < 0.60:
        kind, socket, data = "spoiled request", POLICY, _spoiled_request(random)
    elif draw < 0.72:
        kind, socket, data = "evaluation", *_evaluation(random, right=True)
    elif draw < 0.90:
        kind, socket, data = "spoiled evaluation", *_evaluation(random, right=False)
    else:
        kind, socket, data = "noise", random.choice(SOCKETS), _noise(random)
    ending = Ending.HALF_CLOSE
    if socket == POLICY and random.random() < 0.7:
        # As the qrexec daemon does it, which never closes its direction.
        ending = Ending.WAIT
    elif socket != POLICY and kind != "evaluation" and random.random() < 0.1:
        ending = Ending.WAIT
    if random.random() < 0.08:
        kind, ending = "broken off", Ending.CLOSE
        if random.random() < 0.5:
            data = data[: random.randint(0, len(data))]
    pieces, slow = _cut(random, data), random.random()
    return Case(
        kind,
        socket,
        pieces,
        ending,
        pause=0.0 if slow < 0.9 else 0.002 if slow < 0.99 else random.uniform(0.05, 1.0) / len(pieces),
        hold=1.0 if random.random() < 0.02 else 0.03,
    )


def _lines(random: Random) -> list[bytes]:
    """The lines of a right request."""
    target = _target(random)
    lines = [f"source={_source(random)}", f"intended_target={target}", f"service_and_arg={_service(random)}"]
    if random.random() < 0.5:
        requested = "" if random.random() < 0.6 else random.choice(("far", "far", "work", "gone"))
        lines.insert(1, f"requested_source={requested}")
        if requested and random.random() < 0.8:
            lines[0] = "source=relay"
    for switch in ("assume_yes_for_ask", "just_evaluate"):
        if random.random() < 0.15:
            lines.append(f"{switch}={random.choice(('yes', 'no'))}")
    if random.random() < 0.3:
        random.shuffle(lines)
    return [line.encode("ascii") for line in lines]


def _source(random: Random) -> str:
    if random.random() < 0.9:
        return random.choice(NAMES)
    name = random.choice(NAMES)
    return random.choice(
        ("dom0", "gone", "@adminvm", "@tag:t", "*", "", f"uuid:{uuid_of(name)}", "a b", "a\rb")
    )


def _target(random: Random) -> str:
    if random.random() < 0.6:
        return random.choice((*NAMES, "dom0"))
    name = random.choice(("dvm", "online-dvm", *NAMES))
    uuid = f"uuid:{uuid_of(name)}"
    known = ("", "@default", "@dispvm", "@adminvm", f"@dispvm:{name}", uuid, f"@dispvm:{uuid}", "gone")
    return random.choice((*known, "@anyvm", "*", "@tag:t", "@", "@dispvm:", "@dispvm:@tag:t", "a=b", "a\0b"))


def _service(random: Random) -> str:
    draw = random.random()
    service, argument = random.choice(SERVICES), random.choice(ARGUMENTS)
    if draw < 0.85:
        return f"{service}+{argument}" if argument or draw < 0.5 else service
    odd = (
        "other",
        "",
        "+",
        "++",
        f"+{service}",
        f"{service}\r",
        f"{service}+\x7f\x01",
        f"{service}+result=allow",
    )
    return random.choice((*odd, f"{service}+{'x' * random.choice((3_900, 4_000, 4_200, 20_000))}"))


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines) + b"\n"


def _spoiled_request(random: Random) -> bytes:
    lines = _lines(random)
    for _ in range(random.choice((0, 1, 1, 1, 2))):
        _spoil_lines(random, lines)
    data = _joined(lines)
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        data = _spoil_bytes(random, data)
    return data


def _spoil_lines(random: Random, lines: list[bytes]) -> None:
    """One thing that a wrong or hostile client could do to the lines."""
    at = random.randrange(len(lines)) if lines else 0
    line = lines[at] if lines else b"source=work"
    key, _, value = line.partition(b"=")
    draw = random.randrange(12)
    if draw == 0:
        del lines[at : at + 1]
    elif draw == 1:
        lines.insert(random.randint(0, len(lines)), line)
    elif draw == 2:
        unknown = (
            b"domain_id=1",
            b"process_ident=2",
            b"x=y",
            b"=",
            b"=x",
            b"result=allow",
            key.upper() + b"=x",
        )
        lines.insert(at, random.choice(unknown))
    elif draw == 3:
        lines[at : at + 1] = [random.choice((key, value, b" " + line, line + b"\r", key + b" =" + value))]
    elif draw == 4:
        switch = random.choice((b"assume_yes_for_ask", b"just_evaluate"))
        lines.append(switch + b"=" + random.choice((b"yes", b"no", b"Yes", b"", b"yes ", b"yes\r", b"1")))
    elif draw == 5:
        lines.insert(at, b"")
    elif draw == 6:
        # So long that no line end fits in any more, or just as long as it may be.
        spare = LINE - len(key) - 1 + random.choice((-1, 0, 1, 1, 30_000)) if random.random() < 0.2 else 500
        lines[at : at + 1] = [key + b"=" + value.ljust(spare, b"y")]
    elif draw == 7:
        lines[at : at + 1] = [key + b"=" + bytes([random.randrange(256)]) + value]
    elif draw == 8:
        lines[at : at + 1] = [key + b"=" + value + b"\0" + value]
    elif draw == 9:
        lines[at : at + 1] = [key + b"==" + value]
    elif draw == 10 and random.random() < 0.1:
        lines.extend(line for _ in range(random.choice((100, 5_000))))
    else:
        random.shuffle(lines)


def _spoil_bytes(random: Random, data: bytes) -> bytes:
    """One thing that a wire could do to the bytes."""
    at, draw = random.randint(0, len(data)), random.randrange(7)
    end = min(len(data), at + random.randint(1, 12))
    if draw == 0:
        return data[:at]
    if draw == 1:
        return data[:at] + data[end:]
    if draw == 2:
        return data[:end] + data[at:]
    if draw == 3:
        return data[:at] + random.randbytes(random.randint(1, 6)) + data[at:]
    if draw == 4:
        return data[:at] + random.choice((b"\r", b"\n", b"\n\n", b"=", b"\0", b"\xff", b" ")) + data[at:]
    if draw == 5:
        return data.removesuffix(b"\n" * random.randint(1, 2))
    return data + random.choice(
        (b"\n", b"source=dom0\n\n", random.randbytes(random.choice((5, 500, 50_000))))
    )


def _evaluation(random: Random, right: bool) -> tuple[str, bytes]:
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
        data = _spoil_bytes(random, data)
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


def _noise(random: Random) -> bytes:
    if random.random() < 0.02:
        return random.choice((b"x", b"\n", b"source=work\n", b"\0")) * random.choice((70_000, 400_000))
    if random.random() < 0.5:
        scraps = (
            b"source=work\n",
            b"intended_target=mail\n",
            b"service_and_arg=a.A\n",
            b"\n",
            b"=",
            b"\0",
            b" ",
        )
        return b"".join(random.choices(scraps, k=random.randint(0, 8)))
    return random.randbytes(random.choice((0, 1, 10, 200, 3_000)))


def _cut(random: Random, data: bytes) -> tuple[bytes, ...]:
    """The data in one piece or in some, and sometimes byte by byte."""
    draw = random.random()
    if draw < 0.6 or len(data) < 2:
        return (data,)
    if draw < 0.63 and len(data) < 300:
        return tuple(data[at : at + 1] for at in range(len(data)))
    places = sorted({0, len(data), *(random.randint(1, len(data) - 1) for _ in range(random.randint(1, 4)))})
    return tuple(data[start:end] for start, end in pairwise(places))
