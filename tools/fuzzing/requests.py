"""Requests to ``policy.sock``: right ones, and what a wrong or hostile client could make of them."""

from __future__ import annotations

from random import Random

from tools.fuzzing.ground import ARGUMENTS, NAMES, SERVICES, uuid_of
from tools.fuzzing.wire import LINE, spoil_bytes


def request(random: Random) -> bytes:
    """A request to the grammar, though not always to one that knows the words."""
    return _joined(_lines(random))


def spoiled_request(random: Random) -> bytes:
    """A request that most likely is none any more."""
    lines = _lines(random)
    for _ in range(random.choice((0, 1, 1, 1, 2))):
        _spoil_lines(random, lines)
    data = _joined(lines)
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        data = spoil_bytes(random, data)
    return data


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
        return random.choice((*NAMES, "dom0", "far"))
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
