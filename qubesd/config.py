"""Where everything lies: one TOML file with defaults, or one directory that holds it all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_FILE = Path("/etc/qubes/qubesd.toml")


@dataclass(frozen=True, slots=True)
class Config:
    """Paths, the libvirt URI and the switches of policy; the defaults are the stock places."""

    qubes_dir: Path = Path("/var/lib/qubes")
    run_dir: Path = Path("/var/run")
    policy_runtime: Path = Path("/run/qubes/policy.d")
    policy_dir: Path = Path("/etc/qubes/policy.d")
    policy_legacy: Path = Path("/etc/qubes-rpc/policy")
    log_dir: Path = Path("/var/log/qubes")
    hypervisor: str = "xen"
    libvirt_uri: str = "xen:///"
    socket_group: str = "qubes"
    visibility: str = "stock"
    on_error: str = "deny"
    trust_qrexec_consent: bool = False
    users: tuple[tuple[int, str], ...] = ()
    """uid of a local user and the name of the management qube that calls over ``user.sock`` are judged as."""

    @property
    def store(self) -> Path:
        return self.qubes_dir / "qubes.xml"

    @property
    def kernels_dir(self) -> Path:
        return self.qubes_dir / "vm-kernels"


def rooted(root: Path) -> Config:
    """All of it under one directory, on the embedded hypervisor: for development, tests, several instances."""
    return Config(
        qubes_dir=root / "var/lib/qubes",
        run_dir=root / "run",
        policy_runtime=root / "run/qubes/policy.d",
        policy_dir=root / "etc/qubes/policy.d",
        policy_legacy=root / "etc/qubes-rpc/policy",
        log_dir=root / "var/log/qubes",
        hypervisor="test",
        libvirt_uri="test:///default",
        socket_group="",
    )
