"""What the engine is told of the Admin API is what the method table says."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping

import pytest

from broker.catalogue import catalogue
from broker.editing.table import METHODS
from policy_engine import Catalogue, Kind, Names
from policy_engine.catalogue import ACCESSES, GUARDED, SCOPES
from tests.policy_d.test_methods import sent

ALL = catalogue(enforced=True)
ONE_TEXT = {"": Kind.TEXT}
ONE_NUMBER = {"": Kind.NUMBER}
ONE_QUBE = {"": Kind.QUBE}


def test_every_call_that_the_shipped_policy_speaks_of_is_there_once() -> None:
    granted_by_nobody = METHODS.keys()
    assert ALL.entries.keys() - granted_by_nobody == {service for service, _, _ in sent()}
    assert all(service.startswith(GUARDED) for service in ALL.entries)
    sets = Counter(
        service for access in ACCESSES for scope in SCOPES for service in ALL.of_set(access, scope)
    )
    assert sets == Counter(list(ALL.entries))


@pytest.mark.parametrize(
    ("service", "access", "scope"),
    [
        pytest.param("admin.vm.Console", "write", "local", id="console"),
        pytest.param("admin.vm.volume.CloneFrom", "write", "local", id="clone-from"),
        pytest.param("admin.vm.volume.ImportWithSize", "write", "local", id="import"),
        pytest.param("admin.vm.device.usb.Attach", "execute", "local", id="attach"),
        pytest.param("admin.vm.Start", "execute", "local", id="start"),
        pytest.param("admin.Events", "read", "global", id="events"),
        pytest.param("admin.backup.Execute", "execute", "global", id="backup"),
        pytest.param("admin.backup.Info", "read", "local", id="backup-info"),
    ],
)
def test_a_call_is_of_one_set(service: str, access: str, scope: str) -> None:
    found = [one for one in ACCESSES if service in ALL.of_set(one, scope)]
    assert found == [access]


@pytest.mark.parametrize(
    ("service", "argument", "form"),
    [
        pytest.param("admin.vm.property.Set", "netvm", ONE_QUBE, id="property-qube"),
        pytest.param("admin.vm.property.Set", "memory", {"": Kind.MEBIBYTES}, id="property-number"),
        pytest.param("admin.vm.property.Set", "label", ONE_TEXT, id="property-label"),
        pytest.param("admin.vm.property.Set", "debug", ONE_TEXT, id="property-flag"),
        pytest.param("admin.vm.property.Set", "nosuch", None, id="property-unknown"),
        pytest.param("admin.vm.property.Set", "default_netvm", None, id="property-of-the-system"),
        pytest.param("admin.property.Set", "default_netvm", ONE_QUBE, id="system-qube"),
        pytest.param("admin.property.Set", "netvm", None, id="system-unknown"),
        pytest.param("admin.vm.feature.Set", "f", ONE_TEXT, id="feature"),
        pytest.param("admin.vm.volume.Resize", "private", ONE_NUMBER, id="size"),
        pytest.param("admin.vm.Create.AppVM", "", {"name": Kind.TEXT, "label": Kind.TEXT}, id="create"),
        pytest.param("admin.pool.volume.Resize", "p", {"vid": Kind.TEXT, "size": Kind.NUMBER}, id="vid"),
        pytest.param(
            *("admin.pool.Add", "callback", {"name": Kind.TEXT, "conf_id": Kind.TEXT}), id="driver-options"
        ),
        pytest.param("admin.pool.Add", "nosuch", None, id="no-driver"),
        pytest.param("admin.vm.device.usb.Assign", "a+1", {"mode": Kind.TEXT}, id="usb"),
        pytest.param("admin.vm.volume.CloneTo", "private", None, id="token"),
        pytest.param("admin.vm.volume.Import", "private", None, id="stream"),
        pytest.param("admin.vm.firewall.Set", "", None, id="rules"),
        pytest.param("admin.vm.Start", "", None, id="no-payload"),
    ],
)
def test_form(service: str, argument: str, form: Mapping[str, Kind] | None) -> None:
    assert ALL.entries[service].form(argument) == form


@pytest.mark.parametrize(
    ("service", "argument", "altered", "reserved"),
    [
        pytest.param("admin.vm.tag.Set", "work", "@tag:work", False, id="tag-set"),
        pytest.param("admin.vm.tag.Remove", "work", "@tag:work", False, id="tag-remove"),
        pytest.param("admin.vm.tag.Get", "work", None, False, id="tag-get"),
        pytest.param("admin.vm.tag.Set", "created-by-a", "@tag:created-by-a", True, id="origin"),
        pytest.param(
            "admin.vm.tag.Remove", "disp-created-by-a", "@tag:disp-created-by-a", True, id="origin-2"
        ),
        pytest.param("admin.vm.property.Set", "label", "@label", False, id="label"),
        pytest.param("admin.vm.property.Reset", "template", "@template", False, id="template"),
        pytest.param("admin.vm.property.Set", "guivm", "@served-by", False, id="guivm"),
        pytest.param("admin.vm.property.Reset", "audiovm", "@served-by", False, id="audiovm"),
        pytest.param("admin.vm.property.Set", "relayvm", "@served-by", False, id="relayvm"),
        pytest.param("admin.property.Set", "default_guivm", "@served-by", False, id="default-guivm"),
        pytest.param("admin.vm.property.Set", "memory", None, False, id="memory"),
        pytest.param("admin.vm.feature.Set", "tag-created-vm-with", None, True, id="brought-tags"),
        pytest.param("admin.vm.feature.Remove", "set-created-guivm", None, True, id="brought-guivm"),
        pytest.param("admin.vm.feature.Set", "owner-uuid", None, True, id="owner"),
        pytest.param("admin.vm.feature.Set", "f", None, False, id="feature"),
    ],
)
def test_authority(service: str, argument: str, altered: str | None, reserved: bool) -> None:
    entry = ALL.entries[service]
    assert (entry.alters(argument), entry.reserved(argument)) == (altered, reserved)


@pytest.mark.parametrize(
    ("service", "needs"),
    [
        pytest.param("admin.vm.Start", False, id="one-qube"),
        pytest.param("admin.vm.notes.Set", False, id="payload"),
        pytest.param("admin.vm.List", True, id="rows"),
        pytest.param("admin.vm.property.Reset", True, id="subjects"),
        pytest.param("admin.vm.tag.Remove", True, id="alters"),
        pytest.param("admin.vm.feature.Remove", True, id="reserved"),
    ],
)
def test_what_a_daemon_without_a_core_can_judge(service: str, needs: bool) -> None:
    assert ALL.entries[service].needs_core is needs


@pytest.mark.parametrize(
    ("service", "argument", "qube"),
    [
        pytest.param("admin.vm.Create.AppVM", "tpl", "tpl", id="template"),
        pytest.param("admin.vm.device.usb.Attach", "sys-usb+2-1+a", "sys-usb", id="backend"),
        pytest.param("admin.vm.device.usb.Attached", "sys-usb+2-1", "sys-usb", id="asked-backend"),
        pytest.param("admin.vm.device.usb.Available", "2-1", None, id="own-port"),
        pytest.param("admin.vm.property.Set", "netvm", None, id="no-qube"),
    ],
)
def test_what_an_argument_names(service: str, argument: str, qube: str | None) -> None:
    assert ALL.entries[service].names.of(argument) == qube


def test_the_table_is_read_only_for_the_dialect() -> None:
    """``qrexec-policy-exec`` waits for its imports with every call that it decides alone."""
    program = (
        "import sys; import broker.deciding.alone; from broker.catalogue import catalogue;"
        "names = {'qubesd.api.table', 'qubesd.core.core', 'libvirt', 'yaml'};"
        "heavy = lambda: sorted(names & sys.modules.keys());"
        "before = heavy(); catalogue(enforced=False); print(before, heavy())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[] ['qubesd.api.table', 'qubesd.core.core']\n"


def test_whether_it_is_enforced_is_for_who_asks() -> None:
    assert Catalogue(ALL.entries, enforced=True) == ALL
    assert not catalogue(enforced=False).enforced
    assert {entry.names for entry in ALL.entries.values()} == set(Names)
