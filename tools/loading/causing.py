"""Those who cause the load, in a process of their own: ``FLOOD-SOCKET LARGE-SOCKET TARGET SECONDS``.

It yields to everybody else on the machine: what is looked at is how the daemon divides its time, not how the
kernel does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tools.loading.calling import flood, send_large

_LARGE = 4
_PAUSE = 0.2


async def cause(flooding: Path, large: Path, target: str, seconds: float) -> dict[str, int]:
    """Make the load for so long; how many calls of either kind were answered."""
    answered, *done = await asyncio.gather(
        flood(flooding, target, seconds),
        *(send_large(large, target, _PAUSE, seconds) for _ in range(_LARGE)),
    )
    return {"flood_calls": answered, "large_payloads": sum(done)}


if __name__ == "__main__":
    os.nice(10)
    first, second, qube, duration = sys.argv[1:]
    print(json.dumps(asyncio.run(cause(Path(first), Path(second), qube, float(duration)))))
