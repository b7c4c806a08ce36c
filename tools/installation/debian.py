"""Two Debian packages from one wheel: the policy part for a machine that has a stock qubesd, and the whole.

They hold the plain packages in a directory of their own and depend on Debian's libraries, rather than bring
a virtual environment: the libraries then get Debian's security updates, the packages fit every architecture,
and nothing is built or fetched on the machine that decides.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from broker.editing.table import METHODS as POLICY_CALLS
from broker.places import QUBESD_MISC_SOCKET, QUBESD_SOCKET
from broker.root import SHIPPED
from qubesd.api.table import METHODS, MISC
from tools.installation.switch import PROGRAM, below
from tools.installation.tree import HERE, MANUAL, SWITCH, lay

ROOT = HERE.parents[1]
POLICY = "qubes-admin-policy"
WHOLE = "qubes-admin-core"
SERVICES = {
    "admin.vm.Console": "qubes-console",
    "admin.vm.volume.Import": "qubes-volume-import",
    "admin.vm.volume.ImportWithSize": "qubes-volume-import",
    **dict.fromkeys(POLICY_CALLS, "qubes-policy-admin"),
    "policy.RegisterArgument": "qubes-policy-register-argument",
}
"""The services that the qrexec daemon runs as a program; one that is two knows by its name which it is."""
SOCKET_SERVICES = {
    **{service: Path(QUBESD_SOCKET) for service in METHODS if service not in SERVICES},
    **dict.fromkeys(MISC, Path(QUBESD_MISC_SOCKET)),
}
"""The services that the qrexec daemon connects to a socket of qubesd."""
AGENT_SOCKET = Path("/var/run/qubes/policy-agent.sock")
AGENT_SERVICES = ("policy.Ask", "policy.Notify", "device-agent.GUI")
"""They lead to the agent's socket, which is there while somebody is logged in."""
AUTOSTART = "qrexec-policy-agent.desktop"
STOCK_NAMES = ("qrexec-policy-daemon", "qrexec-policy-exec")

_CONTROL = """\
Package: {name}
Version: {version}
Architecture: all
Maintainer: The qubes-admin-core developers <qubes-admin-core@localhost>
Section: admin
Priority: optional
Depends: {depends}
{recommends}Description: {title}
"""


@dataclass(frozen=True, slots=True)
class Package:
    """What the control file says, and the scripts that dpkg runs."""

    name: str
    depends: str
    title: str
    scripts: tuple[tuple[str, str], ...] = ()
    recommends: str = ""


POLICY_PACKAGE = Package(
    POLICY,
    "python3 (>= 3.11), python3-lark, python3-lxml, python3-pyinotify",
    "Qubes policy decisions, beside the stock policy daemon or instead of it",
    (
        (
            "postinst",
            f"""\
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
python3 -m compileall -q -s "$DPKG_ROOT" -p / "$DPKG_ROOT{PROGRAM}/python"
# After an upgrade the daemon that runs is the old one.
mode=$("$DPKG_ROOT{SWITCH.leads}" --root "$DPKG_ROOT/" status | head -n 1)
[ "$mode" = stock ] || "$DPKG_ROOT{SWITCH.leads}" --root "$DPKG_ROOT/" "$mode"
""",
        ),
        (
            "prerm",
            f"""\
#!/bin/sh
set -e
[ "$1" = upgrade ] || "$DPKG_ROOT{SWITCH.leads}" --root "$DPKG_ROOT/" stock
find "$DPKG_ROOT{PROGRAM}/python" -name __pycache__ -prune -exec rm -r {{}} +
""",
        ),
    ),
)
WHOLE_PACKAGE = Package(
    WHOLE,
    f"{POLICY} (= {{version}}), python3-libvirt, python3-yaml, scrypt, adduser",
    "Qubes OS Admin API, policy first: qubesd and its default policy",
    (
        (
            "postinst",
            """\
#!/bin/sh
set -e
[ "$1" = configure ] && [ -z "$DPKG_ROOT" ] || exit 0
# Its members call as dom0.
getent group qubes >/dev/null || addgroup --quiet --system qubes
[ ! -d /run/systemd/system ] || systemctl daemon-reload
""",
        ),
        (
            "prerm",
            """\
#!/bin/sh
set -e
[ "$1" = remove ] && [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ] || exit 0
systemctl stop qubesd.service
""",
        ),
    ),
    # What the agent's windows need; on a terminal it does without.
    "python3-gi, gir1.2-gtk-3.0",
)


def build(wheel: Path, output: Path) -> list[Path]:
    """Make both packages, the same bytes from the same wheel. Raises ``CalledProcessError``, ``OSError``."""
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory() as folder:
        policy, whole = Path(folder) / POLICY, Path(folder) / WHOLE
        _policy_files(wheel, policy)
        _whole_files(whole, below(policy, PROGRAM))
        return [
            _pack(POLICY_PACKAGE, version, policy, output),
            _pack(WHOLE_PACKAGE, version, whole, output),
        ]


def _policy_files(wheel: Path, root: Path) -> None:
    program = below(root, PROGRAM)
    program.parent.mkdir(parents=True)
    lay(wheel, program)
    _link(root, SWITCH.place, SWITCH.leads)
    _link_page(root, PROGRAM / MANUAL / f"man8/{SWITCH.place.name}.8")
    _copy(ROOT / "LICENSE", below(root, Path(f"/usr/share/doc/{POLICY}/copyright")))


def _whole_files(root: Path, laid: Path) -> None:
    """Programs that people type get a place on their path; those of stock names are left to the switch.

    Args:
        laid: the program's directory, as the other package has it.
    """
    for page in sorted((laid / MANUAL).glob("*/*")):
        if page.stem != SWITCH.place.name:
            _link_page(root, PROGRAM / page.relative_to(laid))
    for program in sorted((laid / "bin").iterdir()):
        if program.name not in STOCK_NAMES and program.name != SWITCH.leads.name:
            _link(root, Path("/usr/bin") / program.name, PROGRAM / "bin" / program.name)
    for service, name in SERVICES.items():
        _link(root, Path("/etc/qubes-rpc") / service, PROGRAM / "bin" / name)
    for service, socket in SOCKET_SERVICES.items():
        _link(root, Path("/etc/qubes-rpc") / service, socket)
    for service in AGENT_SERVICES:
        _link(root, Path("/etc/qubes-rpc") / service, AGENT_SOCKET)
    _copy(HERE / "autostart" / AUTOSTART, below(root, Path("/etc/xdg/autostart") / AUTOSTART))
    _copy(HERE / "systemd/qubesd.service", below(root, Path("/usr/lib/systemd/system/qubesd.service")))
    for pattern in SHIPPED:
        for file in sorted((ROOT / "policy.d").glob(pattern)):
            place = file.relative_to(ROOT / "policy.d")
            _copy(file, below(root, Path("/etc/qubes/policy.d") / place))
            _copy(file, below(root, Path("/usr/share/qubes-admin-core/policy.d") / place))
    _copy(ROOT / "LICENSE", below(root, Path(f"/usr/share/doc/{WHOLE}/copyright")))
    _copy(ROOT / "README.md", below(root, Path(f"/usr/share/doc/{WHOLE}/README.md")))


def _link_page(root: Path, page: Path) -> None:
    """A manual page of the program's directory, where ``man`` looks."""
    _link(root, Path("/usr") / page.relative_to(PROGRAM), page)


def _pack(package: Package, version: str, root: Path, output: Path) -> Path:
    control = root / "DEBIAN"
    control.mkdir()
    depends = package.depends.format(version=version)
    recommends = f"Recommends: {package.recommends}\n" if package.recommends else ""
    text = _CONTROL.format(
        name=package.name, version=version, depends=depends, recommends=recommends, title=package.title
    )
    (control / "control").write_text(text)
    kept = sorted(f"/{path.relative_to(root)}\n" for path in root.glob("etc/**/*") if path.is_file())
    if kept:
        (control / "conffiles").write_text("".join(kept))
    for name, script in package.scripts:
        (control / name).write_text(script)
        (control / name).chmod(0o755)
    for path in (root, *root.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    output.mkdir(parents=True, exist_ok=True)
    made = output / f"{package.name}_{version}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, made],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", "315532800")},
    )
    return made


def _link(root: Path, place: Path, leads: Path) -> None:
    path = below(root, place)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(leads)


def _copy(file: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.read_bytes())
    path.chmod(0o644)
