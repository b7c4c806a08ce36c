"""What the daemon under test decides by: policy and qubes, drawn from a seed, one ground after the other.

Ground 0 is what the daemon starts with. Each following one writes one of the policy files anew and changes
the qubes, so that ground N follows from the seed and N alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from uuid import UUID

from policy_engine import Policy, PolicyError, World, load

NAMES = ("work", "mail", "vault", "dvm", "online-dvm", "far", "relay", "sys-gui")
SERVICES = ("a.A", "a.B", "a.C")
ARGUMENTS = ("", "x", "x+y")

_FILES = ("10-fuzz.policy", "20-fuzz.policy", "include/fuzz")
_SOURCES = (*("*", "@anyvm") * 6, *("@tag:t", "@type:AppVM") * 2, "dom0", *NAMES)
_TARGETS = (
    *("*", "@anyvm", "@tag:t", "@tag:u", "@type:AppVM", "@type:RemoteVM", "@adminvm", "@default") * 3,
    *("@dispvm", "@dispvm:dvm", "@dispvm:@tag:t", "gone", *NAMES),
)
_REDIRECTS = ("@adminvm", "@dispvm", "@dispvm:dvm", "dom0", "gone", *NAMES)
_USERS = ("root", "", "a=b", "x" * 5_000)
_BROKEN = ("a.A * work alow", "a.A * work mail alow", "!include include/nowhere", "a.A * @work * deny")


def uuid_of(name: str) -> str:
    """The uuid of the qube of this name, on every ground."""
    return str(UUID(int=0 if name == "dom0" else Random(name).getrandbits(128)))


@dataclass(frozen=True, slots=True)
class Ground:
    """One policy, or why it does not load, and one set of qubes; ``document`` is what qubesd says of them."""

    number: int
    policy: Policy | PolicyError
    world: World
    document: bytes

    def judged_by(self, other: Ground) -> Ground:
        """These qubes with the policy of another ground: the daemon learns of the two in different ways."""
        return replace(self, policy=other.policy)


@dataclass(frozen=True, slots=True)
class Place:
    """The directories that the daemon under test reads its policy from."""

    seed: int
    runtime: Path
    configured: Path

    def lay_out(self, number: int) -> Ground:
        """Make ground ``number`` where nothing is yet."""
        self.runtime.mkdir()
        (self.configured / "include").mkdir(parents=True)
        for index in range(len(_FILES)):
            self._write(number - (number - index) % len(_FILES))
        return self._ground(number)

    def move_on(self, number: int) -> Ground:
        """Make ground ``number`` out of the one before it: one file takes the place of its elder whole."""
        self._write(number)
        return self._ground(number)

    def _write(self, version: int) -> None:
        path = self.configured / _FILES[version % len(_FILES)]
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(policy_text(self.seed, version), encoding="ascii")
        os.replace(beside, path)

    def _ground(self, number: int) -> Ground:
        policy: Policy | PolicyError
        try:
            policy = load(directories=(str(self.runtime), str(self.configured)))
        except PolicyError as error:
            policy = error
        description = system(self.seed, number)
        return Ground(number, policy, World.from_system_info(description), json.dumps(description).encode())


def policy_text(seed: int, version: int) -> str:
    """One policy file; one in twenty of those that are edits does not load."""
    random = Random(f"{seed}/policy/{version}")
    lines = [_rule(random) for _ in range(random.randint(3, 12))]
    if _FILES[version % len(_FILES)] == "20-fuzz.policy":
        lines.insert(random.randint(0, len(lines)), "!include include/fuzz")
    if version > 0 and random.random() < 0.05:
        lines.insert(random.randint(0, len(lines)), random.choice(_BROKEN))
    return "".join(f"{line}\n" for line in lines)


def _rule(random: Random) -> str:
    service, argument = random.choice((*SERVICES, "*", "*")), "*"
    if service != "*" and random.random() < 0.2:
        argument = f"+{random.choice(ARGUMENTS)}"
    source, target = random.choice(_SOURCES), random.choice(_TARGETS)
    action = random.choice(("allow", "allow", "allow", "ask", "ask", "deny"))
    words = [service, argument, source, target, action]
    if random.random() < 0.9 or action == "deny":
        words.append(f"notify={random.choice(('no', 'no', 'no', 'yes'))}")
    if action != "deny":
        if random.random() < 0.2 or (action == "allow" and target == "@default"):
            words.append(f"target={random.choice(_REDIRECTS)}")
        if random.random() < 0.1:
            words.append(f"user={random.choice(_USERS)}")
        if random.random() < 0.2:
            words.append(f"autostart={random.choice(('yes', 'no'))}")
        if action == "ask" and random.random() < 0.3:
            words.append(f"default_target={random.choice(_REDIRECTS)}")
    return " ".join(words)


def system(seed: int, number: int) -> dict[str, object]:
    """The qubes of ground ``number``, as ``internal.GetSystemInfo`` describes them. Some are gone."""
    random = Random(f"{seed}/system/{number}")
    there = [name for name in NAMES if random.random() < 0.9]
    return {"domains": {name: _qube(random, name) for name in ("dom0", *there)}}


def _qube(random: Random, name: str) -> dict[str, object]:
    klass = {"dom0": "AdminVM", "far": "RemoteVM"}.get(name) or random.choice(("AppVM", "AppVM", "DispVM"))
    return {
        "type": klass,
        "uuid": uuid_of(name),
        "tags": _some(random, ("t", "u", "guivm-sys-gui")),
        "template_for_dispvms": name.endswith("dvm") and random.random() < 0.9,
        "default_dispvm": random.choice(("dvm", "online-dvm", "gone", None)),
        "power_state": random.choice(("Running", "Halted", "Paused")),
        "internal": random.choice((None, None, "", "1")),
        # Only dom0's own agent: that of another qube would be called through the real qrexec.
        "guivm": random.choice(("dom0", "dom0", None)),
        "relayvm": random.choice(("relay", "relay", "gone", None)) if klass == "RemoteVM" else None,
        "transport_rpc": random.choice(("a.Transport", "a.Transport", None)) if klass == "RemoteVM" else None,
        "icon": "appvm-red",
        "label": "red",
    }


def _some(random: Random, words: Iterable[str]) -> list[str]:
    return [word for word in words if random.random() < 0.5]
