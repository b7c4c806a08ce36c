"""Follows a policy where the kernel allows few watches: FOLDER, in a user namespace with a limit of its own.

Prints an object for each state: the services of the rules, or what is wrong, and whether not all is watched.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path

from broker.reload import policy_in_force
from policy_engine import PolicyError, format_rule


async def follow(folder: Path) -> None:
    def tell() -> None:
        now = reloader.policies.now
        state = (
            now.kind if isinstance(now, PolicyError) else [format_rule(rule).split()[0] for rule in now.rules]
        )
        print(json.dumps({"state": state, "unwatched": bool(reloader.unwatched)}), flush=True)

    async with policy_in_force([str(folder)], str(folder / "legacy"), False, enforced=True) as reloader:
        reloader.swapped = tell
        tell()
        await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(follow(Path(sys.argv[1])))
