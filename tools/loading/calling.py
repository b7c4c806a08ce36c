"""Callers: one that floods, some with large payloads, and the steady ones whose answers are timed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from broker.sockets import short_path
from broker.wire import encode_call
from qubesd.api.call import Call

_CONNECTIONS = 64
"""As many as one caller may hold."""


async def exchange(path: Path, request: bytes) -> bytes:
    """One request and its whole reply; nothing where the daemon closed without one."""
    with short_path(path) as name:
        reader, writer = await asyncio.open_unix_connection(name)
    try:
        writer.write(request)
        writer.write_eof()
        return await reader.read()
    except (ConnectionResetError, BrokenPipeError):
        return b""
    finally:
        writer.close()


async def flood(path: Path, target: str, seconds: float) -> int:
    """Call as fast as it goes on as many connections as there may be; how many calls were answered."""
    requests = (
        encode_call(Call("admin.vm.property.Get", "label", "dom0", target, b"")),
        encode_call(Call("admin.vm.List", "", "dom0", "dom0", b"")),
        encode_call(Call("admin.vm.property.Set", "label", "dom0", target, b"red")),
    )
    answered, end = 0, time.monotonic() + seconds

    async def call(first: int) -> None:
        nonlocal answered
        turn = first
        while time.monotonic() < end:
            turn += 1
            if await exchange(path, requests[turn % len(requests)]):
                answered += 1

    # A few more than it may hold: the rest is refused, and comes again at once.
    await asyncio.gather(*(call(number) for number in range(_CONNECTIONS + 8)))
    return answered


async def send_large(path: Path, target: str, pause: float, seconds: float) -> int:
    """Set features of nearly 64 KiB, one after the other; how many were set."""
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        value = bytes([ord("a") + done % 26]) * 65_000
        request = encode_call(Call("admin.vm.feature.Set", "large", "dom0", target, value))
        done += (await exchange(path, request)).startswith(b"0\0")
        await asyncio.sleep(pause)
    return done


async def call_steadily(path: Path, target: str, pause: float, seconds: float) -> list[float]:
    """Seconds to the answer of each call, of which there is one in every pause."""
    request = encode_call(Call("admin.vm.property.Get", "label", "dom0", target, b""))
    taken, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.perf_counter()
        reply = await exchange(path, request)
        taken.append(time.perf_counter() - started)
        if not reply.startswith(b"0\0"):
            raise RuntimeError(f"a steady caller was answered {reply[:100]!r}")
        await asyncio.sleep(pause)
    return taken
