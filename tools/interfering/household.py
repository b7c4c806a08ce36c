"""The system that both daemons have, and what only one of them has.

alice, who is observed, and bob are operators; they share the team's qubes.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from broker.client import CallError, call
from qubesd.config import rooted
from tools.interfering.rules import Rules

MARK = "mark"
"""A qube that alice sees and nobody names; what happens to it says how far her events have come."""

SEEN = """\
admin.vm.Create.TemplateVM dom0 name=tmpl label=black
admin.property.Set+default_template dom0 tmpl
admin.property.Set+stats_interval dom0 1
admin.vm.Create.AppVM dom0 name=net label=red
admin.vm.property.Set+provides_network net True
admin.vm.property.Set+netvm net
admin.vm.Create.AppVM+tmpl dom0 name=alice label=red
admin.vm.Create.AppVM+tmpl dom0 name=bob label=red
admin.vm.Create.AppVM+tmpl dom0 name=mark label=red
admin.vm.Create.AppVM+tmpl dom0 name=vault label=black
admin.vm.tag.Set+shared-tpl tmpl
admin.vm.tag.Set+shared-net net
admin.vm.tag.Set+managed-by-alice mark
admin.vm.tag.Set+operator alice
admin.vm.tag.Set+operator bob
admin.vm.tag.Set+team bob
admin.pool.Add+file dom0 name=teampool\\ndir_path={root}/teampool
"""

KEPT = """\
admin.vm.tag.Set+team alice
admin.vm.Create.AppVM+tmpl dom0 name=team-web label=orange
admin.vm.tag.Set+team team-web
admin.vm.property.Set+netvm team-web net
admin.vm.Create.AppVM+tmpl dom0 name=team-dvm label=orange
admin.vm.tag.Set+team team-dvm
admin.vm.property.Set+template_for_dispvms team-dvm True
admin.vm.Create.StandaloneVM dom0 name=team-old label=orange
admin.vm.tag.Set+team team-old
admin.vm.property.Set+provides_network team-old True
admin.vm.Create.AppVM+tmpl dom0 name=alice_work label=green
admin.vm.tag.Set+managed-by-alice alice_work
admin.vm.property.Set+default_dispvm alice team-dvm
"""
"""What alice works on: made again now and then, since everybody may remove it."""

HIDDEN = """\
admin.label.Create+secretlabel dom0 0x123456
admin.pool.Add+file dom0 name=secretpool\\ndir_path={root}/secretpool
admin.vm.Create.AppVM+tmpl dom0 name=secret-1 label=secretlabel
admin.vm.property.Set+provides_network secret-1 True
admin.vm.property.Set+template_for_dispvms secret-1 True
admin.vm.property.Set+netvm secret-1 net
admin.vm.tag.Set+created-by-bob secret-1
admin.vm.feature.Set+qrexec secret-1 1
admin.vm.feature.Set+supported-rpc.qubes.WaitForRunningSystem secret-1 1
admin.vm.feature.Set+supported-rpc.qubes.WaitForSession secret-1 1
admin.vm.feature.Set+preload-dispvm-max secret-1 1
admin.vm.Create.TemplateVM dom0 name=secret-2 label=red
admin.vm.tag.Set+secret secret-2
admin.vm.CreateInPool.StandaloneVM dom0 name=secret-3 label=red pool=secretpool
admin.vm.notes.Set secret-3 a note
admin.vm.firewall.Set secret-3 action=drop
admin.vm.Create.AppVM+tmpl dom0 name=bob_a label=red
admin.vm.tag.Set+managed-by-bob bob_a
admin.vm.property.Set+netvm bob_a secret-1
admin.vm.Start bob_a
"""

EXPOSED = ("team-web", "alice_work")
EXPOSED_HIDDEN = ("secret-1", "bob_a")
"""Backends with a block device each."""


def carry_out(path: Path, script: str, root: Path, lenient: bool = False) -> None:
    """Calls of dom0, one a line: SERVICE+ARGUMENT TARGET PAYLOAD. ``lenient`` goes on after a refusal."""
    for line in script.splitlines():
        method, target, *payload = line.split(" ", 2)
        service, _, argument = method.partition("+")
        text = "".join(payload).replace("\\n", "\n").replace("{root}", str(root))
        try:
            call(path, service, target, argument, text.encode("ascii"))
        except CallError:
            if not lenient:
                raise


def lay_out(root: Path, rules: Rules) -> None:
    """The configuration of a daemon, before its first start."""
    config = rooted(root)
    (config.policy_dir / "include").mkdir(parents=True)
    for name, text in rules.files.items():
        (config.policy_dir / name).write_text(text, encoding="ascii")
    (root / "etc/qubes/qubesd.toml").write_text(rules.configuration, encoding="ascii")


def copy(template: Path, root: Path) -> None:
    """A second system like the one that was made once and is not running."""
    subprocess.run(["cp", "-a", "--sparse=always", template, root], check=True)
    store = rooted(root).store
    store.write_bytes(store.read_bytes().replace(bytes(template), bytes(root)))


def is_silent(root: Path, backend: str) -> bool:
    """Whether a qube runs and its guest has not told yet of the block device that it has."""
    device = _device(root, backend)
    return device.parent.exists() and not device.exists()


def expose(root: Path, backend: str) -> None:
    """Have the guest tell of it."""
    made = root / f"made-{backend}"
    made.mkdir(exist_ok=True)
    (made / "desc").write_text("disk", encoding="ascii")
    with suppress(FileNotFoundError):  # it has stopped meanwhile
        made.rename(_device(root, backend))


def _device(root: Path, backend: str) -> Path:
    return rooted(root).run_dir / f"qubesdb/{backend}/qubes-block-devices/sda"
