"""What the doctor sees of the machine: the group, the limits of the kernel, programs, and the hypervisor."""

from __future__ import annotations

import asyncio
import grp
import os
import resource
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from broker.agent import QREXEC_CLIENT
from broker.operation.finding import Finding, error, ok, warning
from broker.operation.pools import unusable
from qubesd.config import Config
from qubesd.errors import QubesError
from qubesd.store.check import Outcome
from qubesd.virt import drivers

_INOTIFY = Path("/proc/sys/fs/inotify")
FEWEST = {"max_user_watches": 8_192, "max_user_instances": 64}
"""Of what the policy's files are watched with; what other programs of the user take counts as well."""

SPARE_DESCRIPTORS = 2_048
"""Beside one for each qube: those for connections."""

PATIENCE = 20.0
"""Seconds that the hypervisor may take."""

_PROGRAMS = {"lvm_thin": ("lvs", "lvcreate"), "zfs": ("zfs",)}
"""What the drivers of pools call."""


def account(config: Config) -> Iterator[Finding]:
    """The group that may call, and whether whoever runs this sees what the daemon sees."""
    if config.hypervisor != "test" and os.geteuid() != 0:
        yield warning(
            "user", f"this runs as user {os.geteuid()}, who does not see all that root sees", "run it as root"
        )
    if not config.socket_group:
        yield ok("group", "none but root and the daemon's user may call as dom0")
        return
    try:
        found = grp.getgrnam(config.socket_group)
    except KeyError:
        yield error(
            "group",
            f"socket_group: there is no group {config.socket_group!r}",
            f"groupadd --system {shlex.quote(config.socket_group)}, or name another in the configuration",
        )
    else:
        yield ok("group", f"{config.socket_group}: {', '.join(found.gr_mem) or 'no members'}")


def limits(outcome: Outcome | None) -> Iterator[Finding]:
    """What the kernel grants a user."""
    for name, fewest in FEWEST.items():
        try:
            granted = int((_INOTIFY / name).read_text("ascii"))
        except (OSError, ValueError):
            yield warning("inotify", f"fs.inotify.{name}: is not to be had", "mount /proc")
            continue
        if granted < fewest:
            yield warning(
                "inotify",
                f"fs.inotify.{name} is {granted}: the policy may have to be looked at every second",
                f"sysctl fs.inotify.{name}={fewest}",
            )
        else:
            yield ok("inotify", f"fs.inotify.{name} is {granted}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = SPARE_DESCRIPTORS + (0 if outcome is None else outcome.qubes)
    if hard != resource.RLIM_INFINITY and hard < needed:
        yield warning(
            "descriptors",
            f"a process may have {hard} files open, and {needed} may be needed",
            "set LimitNOFILE= in the unit, or ulimit -Hn",
        )
    else:
        yield ok("descriptors", f"a process may have {hard} files open")


def programs(config: Config, outcome: Outcome | None) -> Iterator[Finding]:
    """The programs that are called."""
    for what in () if outcome is None else unusable(outcome.pools):
        yield warning("pool", f"{what}; its volumes cannot be used", f"qubesd --check {config.store}")
    for driver in () if outcome is None else sorted(outcome.drivers):
        for program in _PROGRAMS.get(driver, ()):
            yield _program(program, f"pools of the driver {driver} need it")
    if outcome is not None and outcome.encrypts:
        yield _program("cryptsetup", "volumes that are ephemeral need it")
    yield _program("scrypt", "backups need it")
    if config.guest_service:
        yield _program(shlex.split(config.guest_service)[0], "guest_service names it")
    if config.hypervisor != "test":
        yield _program(QREXEC_CLIENT, "users in front of other GUI qubes than dom0 are asked by it")


def _program(program: str, why: str) -> Finding:
    # Administrators' programs are not on every user's path.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    found = shutil.which(program, path=path)
    if found is None:
        return warning("program", f"{program}: not there; {why}", f"install {Path(program).name}")
    return ok("program", found)


def hypervisor(config: Config) -> Finding:
    """Whether it can be reached."""
    try:
        asyncio.run(asyncio.wait_for(_reach(config), PATIENCE))
    except QubesError as problem:
        return error("hypervisor", str(problem), "start libvirtd, or set hypervisor and libvirt_uri")
    except TimeoutError:
        return error("hypervisor", f"{config.libvirt_uri}: no answer in {PATIENCE:.0f} s", "restart libvirtd")
    return ok("hypervisor", f"{config.hypervisor}: {config.libvirt_uri} answers")


async def _reach(config: Config) -> None:
    driver = drivers.make(config.hypervisor, config.libvirt_uri)
    try:
        await driver.open(lambda _: None, lambda: None)
    finally:
        await driver.close()
