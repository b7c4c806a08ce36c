"""The store of a machine that was used for long: taken over whole, and what is odd in it told so that it can
be mended."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from broker.client import call
from broker.wire import Failure
from qubesd.errors import StoreError
from qubesd.store.check import check
from qubesd.store.xml import dump, load
from tests.broker.rig import answer, lay_out, serving
from tests.qubesd.store import stock_reader
from tests.qubesd.store.long_used import LONG_USED

KEPT = {
    "labels/@note",
    "properties/later-on",
    "@{http://www.w3.org/XML/1998/namespace}lang",
    "{urn:x}audit-trail",
    "properties/later",
    "domains/dom0/volume-config",
    "domains/far/volume-config",
    "domains/sys-net/devices pci/dom0 04_00.0 0x8086:0x10ef::p020000/@since",
    "domains/sys-net/devices pci/dom0 04_00.0 0x8086:0x10ef::p020000/seen",
    "domains/sys-net/devices pci/dom0 00_19.0 */seen",
    "domains/sys-net/devices pci/@note",
    "domains/work/volume-config/private/@x-quota",
    "domains/work/volume-config/{urn:addon}mirror",
}


def test_it_is_taken_over() -> None:
    outcome = check(LONG_USED.encode(), "f")
    assert set(outcome.kept) == KEPT
    assert outcome.odd == (
        "f:41: pci device dom0:00_19.0 is assigned twice, the first counts",
        "f:81: an assignment of unknown mode 'now-and-then' is dropped",
        "f:22: unknown property 'later' is kept as it is",
        "qube 'work': block device gone:sda1 is no longer assigned, there is no such qube",
    )
    assert outcome.comments == 2


def test_it_is_what_it_was() -> None:
    system = load(LONG_USED.encode())
    assert {label.name: label.color for label in system.labels.values()} == {
        "red": "0xCC0000",
        "gray": "0x555555",
        "black": "0x000000",
        "pink": "0xff00ff",
        "cyan.2": "0x00ffff",
    }
    devices = [(one.port, one.identity, dict(one.options)) for one in system.qubes["sys-net"].assignments]
    assert devices == [
        ("00_19.0", "*", {"no-strict-reset": "True"}),
        ("03_00.0", "*", {"permissive": "True"}),
        ("04_00.0", "0x8086:0x10ef::p020000", {"no-strict-reset": ""}),
    ]
    work = system.qubes["work"]
    assert work.features["menu"] == "a\nb\tc é <d> <e>"
    assert (work.features["boot-mode.active"], work.properties["bootmode"]) == ("", "quiet")
    assert (work.properties["memory"], work.properties["maxmem"], work.properties["kernel"]) == (400, 0, "")
    assert (work.volumes["private"].revisions_to_keep, work.volumes["volatile"].ephemeral) == (-1, True)
    assert system.pools["new"].options == {"uuid": "1234", "a": '<\n"'}
    assert stock_reader.read(dump(system)).qubes["work"].features == work.features


def test_a_daemon_changes_one_thing_of_it(tmp_path: Path) -> None:
    """And writes it back: no other value is another, nothing that is kept is lost, and it starts again."""
    lay_out(tmp_path, "")
    store = tmp_path / "var/lib/qubes/qubes.xml"
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_text(LONG_USED, encoding="utf-8")
    was = load(store.read_bytes())
    for value in (b"a", b"b"):
        with serving(tmp_path, "") as daemon:
            assert call(daemon.socket, "admin.vm.feature.Set", "work", "mine", value) == b""
            for service in (
                "admin.vm.property.GetAll",
                "admin.vm.feature.List",
                "admin.vm.device.pci.Assigned",
            ):
                for qube in was.qubes:
                    call(daemon.socket, service, qube)
            assert call(daemon.socket, "admin.vm.feature.Get", "work", "boot-mode.active") == b""
            for pool in was.pools:
                assert b"\nname=" in call(daemon.socket, "admin.pool.Info", argument=pool)
            refused = answer(daemon.socket, "admin.pool.Set.revisions_to_keep", "dom0", "new", b"2")
            assert isinstance(refused, Failure)
            assert "no driver 'btrfs'" in refused.message
            made = b"name=more label=red pool=old"
            refused = answer(daemon.socket, "admin.vm.CreateInPool.StandaloneVM", "dom0", "", made)
            assert isinstance(refused, Failure)
            assert "found 'some'" in refused.message
        work = was.qubes["work"].with_feature("mine", value.decode())
        assert load(store.read_bytes()) == was.with_qube(work)
        assert set(check(store.read_bytes(), "f").kept) == KEPT


def changed(old: str, new: str) -> str:
    assert old in LONG_USED
    return LONG_USED.replace(old, new, 1)


QID = '<property name="name">work</property><property name="qid">4</property>'
DOM0_PCI = '<device backend-domain="dom0" id="00_19.0" mode="required" identity="*">'


@pytest.mark.parametrize(
    ("document", "at", "what"),
    [
        pytest.param(
            changed(QID, QID.replace("4", "2")),
            '"domain-4"',
            "qubes 'sys-net' and 'work' have the same qid, 2",
            id="qid-twice",
        ),
        pytest.param(
            changed("00000004-2222", "00000002-2222"),
            '"domain-4"',
            "qubes 'sys-net' and 'work' have the same uuid, 00000002-2222-4333-8444-555555555555",
            id="uuid-twice",
        ),
        pytest.param(
            changed(QID, QID.replace("work", "dvm")),
            '"domain-4"',
            "two qubes have the name 'dvm'",
            id="name-twice",
        ),
        pytest.param(
            changed(QID, QID.replace('<property name="qid">4</property>', "")),
            '"domain-4"',
            "the qube has no qid",
            id="no-qid",
        ),
        pytest.param(
            changed(QID, QID.replace(">4<", ">four<")),
            '"domain-4"',
            "qid: expected a whole number, found 'four'",
            id="qid",
        ),
        pytest.param(
            changed(QID, QID.replace('<property name="name">work</property>', "")),
            '"domain-4"',
            "the qube has no name",
            id="no-name",
        ),
        pytest.param(
            changed('<property name="dispid">7777</property>', ""),
            '"domain-5"',
            "the qube has no dispid",
            id="no-dispid",
        ),
        pytest.param(
            changed('name="default_dispvm">dvm', 'name="default_dispvm">gone'),
            '"default_dispvm"',
            "property 'default_dispvm' names 'gone', and there is no such qube: name another, or remove it",
            id="qube-gone",
        ),
        pytest.param(
            changed('"label">red', '"label">mauve'),
            '"label">mauve',
            "there is no label 'mauve': name one of red, gray, black, pink, cyan.2",
            id="label-gone",
        ),
        pytest.param(
            changed(DOM0_PCI, DOM0_PCI.replace("00_19.0", "*")),
            'id="*"',
            "a device is assigned by id, identity or both, and '*' in both is any",
            id="any-device",
        ),
        pytest.param(
            changed('size="2147483648"', 'size="-1"'),
            'size="-1"',
            "'size': expected 0 or more, found -1",
            id="size",
        ),
        pytest.param(
            changed('revisions_to_keep="-1"', 'revisions_to_keep="-2"'),
            'size="2147483648"',
            "'revisions_to_keep': expected -1 or more, found -2",
            id="revisions",
        ),
    ],
)
def test_what_is_refused_says_where_and_why(document: str, at: str, what: str) -> None:
    with pytest.raises(StoreError) as refused:
        check(document.encode(), "f")
    line = document[: document.index(at)].count("\n") + 1
    place, told, said = str(refused.value).split(":", 2)
    # An element that goes on over lines is told by its last one.
    assert (place, said) == ("f", f" {what}")
    assert line <= int(told) <= line + 2


@pytest.mark.parametrize(
    ("document", "odd"),
    [
        pytest.param(
            changed('name="private" pool="lvm"', 'name="private" pool="sold"'),
            "qube 'work': volume 'private' is in pool 'sold', and there is no such pool: it cannot be used",
            id="pool-gone",
        ),
        pytest.param(
            changed(
                '<property name="clockvm">', '<property name="maxmem">7</property><property name="clockvm">'
            ),
            "f:20: computed property 'maxmem' is left out",
            id="computed",
        ),
    ],
)
def test_what_is_odd_is_told(document: str, odd: str) -> None:
    assert odd in check(document.encode(), "f").odd


def test_text_that_stands_nowhere_is_told() -> None:
    document = changed("<tags/>", "<tags/> by hand ").replace("<domains>", "<domains>here", 1)
    places = {change.place: change.before for change in check(document.encode(), "f").changes}
    assert places["text behind domains/dom0/tags"] == " by hand \n      "
    assert places["domains"] == "here\n    "


def test_what_is_twice_does_not_grow() -> None:
    """What is kept in a device that was assigned twice is written once for each time, however often."""
    once = dump(load(LONG_USED.encode()))
    assert dump(load(once)) == once
    seen = etree.fromstring(once).findall("domains/domain/devices[@class='pci']/device[@id='00_19.0']/seen")
    assert len(seen) == 1
