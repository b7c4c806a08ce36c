"""The commands for authors inside a qube: by the services of dom0, which are a program or qubesd's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.broker.authoring.typing_rig import GRANT, Desk, fixture_desk
from tests.broker.rig import ROOT, serving

__all__ = ["fixture_desk"]

POLICY = "policy.List * mgmt dom0 allow\n" + "".join(
    f"policy.{included}{verb} * mgmt dom0 allow target=dom0\n"
    for included in ("", "include.")
    for verb in ("List", "Get", "Replace", "Remove")
)
_BY_PROGRAM = """\
#!/bin/sh
export PYTHONPATH={root} QREXEC_POLICY_DIR={directory} QREXEC_POLICY_ADMIN_LOG={directory}.log
export QREXEC_REMOTE_DOMAIN=mgmt QREXEC_SERVICE_FULL_NAME="$2"
exec {python} -m broker.editing.program
"""
_BY_QUBESD = """\
#!/bin/sh
exec {root}/tools/qrexec-client-vm --agent-socket={socket} "$@"
"""

Door = Callable[[Desk], Path]
"""Makes a qube's way to dom0, and says where the policy is."""


def by_program(desk: Desk) -> Iterator[Path]:
    directory = desk.root / "dom0"
    (directory / "include").mkdir(parents=True)
    (directory / "20-mgmt.policy").write_text(POLICY)
    client(desk, _BY_PROGRAM.format(root=ROOT, directory=directory, python=sys.executable))
    yield directory


def by_qubesd(desk: Desk) -> Iterator[Path]:
    with serving(desk.root / "d", POLICY) as daemon:
        daemon.create("mgmt")
        client(desk, _BY_QUBESD.format(root=ROOT, socket=daemon.channel("mgmt")))
        yield daemon.root / "etc/qubes/policy.d"


def client(desk: Desk, script: str) -> None:
    program = desk.root / "bin/qrexec-client-vm"
    program.parent.mkdir()
    program.write_text(script)
    program.chmod(0o755)
    desk.patch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


@pytest.fixture(name="directory", params=[by_program, by_qubesd])
def fixture_directory(desk: Desk, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The policy of dom0; the desk's own is gone."""
    (desk.root / "etc/qubes/policy.d/include").rmdir()
    (desk.root / "etc/qubes/policy.d").rmdir()
    yield from request.param(desk)


def test_a_file_over_calls(desk: Desk, directory: Path) -> None:
    before = desk.types("", "list")[1].splitlines()
    assert before
    assert desk.types(GRANT, "set", "30-user", "--if", "new") == (0, "", "")
    assert (directory / "30-user.policy").read_text() == GRANT
    assert desk.types("", "-l")[1].splitlines() == sorted([*before, "30-user"])
    assert desk.types("", "get", "30-user") == (0, GRANT, "")
    assert desk.types("# team\n", "-r", "include/team") == (0, "", "")
    assert desk.types("", "list", "include/") == (0, "team\n", "")
    status, _, err = desk.types("oops\n", "-r", "30-user")
    assert (status, "30-user.policy:1: column 5" in err) == (1, True)
    assert desk.types("", "remove", "30-user") == (0, "", "")
    assert desk.types("", "get", "30-user") == (1, "", "qubes-policy: there is no such file\n")


def test_edit_over_calls(desk: Desk, directory: Path) -> None:
    desk.drafts("oops\n", GRANT)
    status, out, _ = desk.types("y\ne\ny\n", "edit")
    assert (status, (directory / "30-user.policy").read_text()) == (0, GRANT)
    assert "+oops\n\nWhat it means is not known here" in out
    assert "30-user.policy:1: column 5: " in out


def test_what_is_dom0s_own_is_said_to_be(desk: Desk, directory: Path) -> None:
    assert desk.types("", "history") == (2, "", "qubes-policy: this is in dom0: run it there\n")


def test_a_refusal_is_told(desk: Desk) -> None:
    (desk.root / "etc/qubes/policy.d/include").rmdir()
    (desk.root / "etc/qubes/policy.d").rmdir()
    client(desk, "#!/bin/sh\necho Request refused >&2\nexit 126\n")
    assert desk.types("", "list") == (1, "", "qubes-policy: Request refused\n")
