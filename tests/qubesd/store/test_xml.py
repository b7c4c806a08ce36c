"""The file's bytes: what is written is read again, what stock wrote is understood, damage is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from qubesd.errors import StoreError
from qubesd.model.state import DOM0, Assignment, Klass, Qube, System, VolumeConfig
from qubesd.store.fresh import fresh_system
from qubesd.store.writing import Writer
from qubesd.store.xml import dump, load
from tests.qubesd.store.systems import systems

UUID = "11111111-2222-4333-8444-555555555555"

STOCK = f"""<?xml version='1.0' encoding='utf-8'?>
<qubes>
  <labels>
    <label id="label-1" color="0xcc0000">red</label>
    <label id="label-5" color="0x555753">gray</label>
    <label id="label-8" color="0x000000">black</label>
  </labels>
  <pools>
    <pool driver="file-reflink" dir_path="/var/lib/qubes" name="varlibqubes" revisions_to_keep="2"/>
    <pool driver="linux-kernel" dir_path="/var/lib/qubes/vm-kernels" name="linux-kernel"/>
  </pools>
  <properties>
    <property name="default_netvm"></property>
    <property name="default_template" ref="tpl"/>
    <property name="stats_interval">5</property>
  </properties>
  <domains>
    <domain id="domain-0" class="AdminVM">
      <properties><property name="label">black</property></properties>
      <features/><tags/>
    </domain>
    <domain id="domain-2" class="AppVM">
      <properties>
        <property name="label">label-1</property>
        <property name="name">mail</property>
        <property name="qid">2</property>
        <property name="uuid">{UUID}</property>
        <property name="include_in_backups">True</property>
        <property name="netvm"/>
        <property name="template">tpl</property>
      </properties>
      <features>
        <feature name="service.cups"/>
        <feature name="menu-items">thunderbird.desktop</feature>
      </features>
      <tags><tag name="created-by-dom0"/></tags>
      <devices class="pci"/>
      <devices class="block">
        <device backend-domain="tpl" id="sda1" mode="auto-attach" identity="*">
          <option name="read-only">yes</option>
        </device>
      </devices>
      <volume-config>
        <volume name="root" pool="varlibqubes" vid="appvms/mail/root" revisions_to_keep="1" rw="True"
                save_on_stop="False" snap_on_start="True" size="10737418240" source="vm-templates/tpl/root"/>
        <volume name="kernel" pool="linux-kernel" vid="6.12.1-1" revisions_to_keep="0" rw="False"
                save_on_stop="False" snap_on_start="False" internal="True"/>
      </volume-config>
    </domain>
    <domain id="domain-1" class="TemplateVM">
      <properties>
        <property name="name">tpl</property>
        <property name="qid">1</property>
        <property name="uuid">21111111-2222-4333-8444-555555555555</property>
        <property name="label">black</property>
      </properties>
      <features/>
      <tags/>
      <volume-config/>
    </domain>
  </domains>
</qubes>
"""


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=60)
@given(systems())
def test_what_is_written_is_read_again(system: System) -> None:
    data = dump(system)
    assert load(data) == system
    assert dump(load(data)) == data


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=15)
@given(st.lists(systems(), min_size=2, max_size=3))
def test_a_writer_remembers_rightly(history: list[System]) -> None:
    writer = Writer()
    for system in [*history, history[0]]:
        assert writer.dump(system) == dump(system)


def test_a_writer_writes_anew_what_changed_only() -> None:
    system = load(STOCK.encode())
    writer = Writer()
    writer.dump(system)
    changed = system.with_qube(system.qubes["mail"].with_feature("x", "1"))
    assert writer.dump(changed) == dump(changed)
    assert writer.dump(changed.without_qube("mail")) == dump(changed.without_qube("mail"))


def test_a_stock_file() -> None:
    system = load(STOCK.encode())
    assert {name: label.color for name, label in system.labels.items()} == {
        "red": "0xcc0000",
        "gray": "0x555555",
        "black": "0x000000",
    }
    assert system.pools["varlibqubes"].options == {"dir_path": "/var/lib/qubes", "revisions_to_keep": "2"}
    assert system.properties == {"default_netvm": None, "default_template": "tpl", "stats_interval": 5}
    assert system.qubes["mail"] == Qube(
        name="mail",
        qid=2,
        uuid=UUID,
        klass=Klass.APP,
        properties={"label": "red", "include_in_backups": True, "netvm": None, "template": "tpl"},
        features={"service.cups": "", "menu-items": "thunderbird.desktop"},
        tags=frozenset({"created-by-dom0"}),
        assignments=(Assignment("block", "tpl", "sda1", "*", "auto-attach", {"read-only": "yes"}),),
        volumes={
            "root": VolumeConfig(
                *("root", "varlibqubes", "appvms/mail/root", 1),
                rw=True,
                snap_on_start=True,
                size=10737418240,
                source="vm-templates/tpl/root",
            ),
            "kernel": VolumeConfig("kernel", "linux-kernel", "6.12.1-1"),
        },
    )


def test_the_form_of_what_is_written() -> None:
    """Read by stock: sections and elements in its order, properties in list order, dom0 first."""
    root = etree.fromstring(dump(load(STOCK.encode())))
    assert root.keys() == []
    assert [section.tag for section in root] == ["labels", "pools", "properties", "domains"]
    domains = root.findall("domains/domain")
    assert [(one.get("id"), one.get("class")) for one in domains] == [
        ("domain-0", "AdminVM"),
        ("domain-2", "AppVM"),
        ("domain-1", "TemplateVM"),
    ]
    assert [part.tag for part in domains[0]] == ["properties", "features", "tags"]
    assert [part.tag for part in domains[1]] == ["properties", "features", "tags", "devices", "volume-config"]
    assert [one.get("name") for one in domains[1].findall("properties/property")] == [
        *("include_in_backups", "label", "name", "qid", "uuid", "netvm", "template")
    ]
    assert domains[1].findtext("properties/property[@name='netvm']") == ""
    volume = domains[1].find("volume-config/volume")
    assert volume is not None
    assert dict(volume.items()) == {
        "name": "root",
        "pool": "varlibqubes",
        "vid": "appvms/mail/root",
        "revisions_to_keep": "1",
        "rw": "True",
        "save_on_stop": "False",
        "snap_on_start": "True",
        "size": "10737418240",
        "source": "vm-templates/tpl/root",
    }


def test_a_fresh_system() -> None:
    system = fresh_system(Path("/q"), Path("/q/vm-kernels"))
    assert load(dump(system)) == system
    assert [(label.name, label.index) for label in system.labels.values()] == [
        *(
            ("red", 1),
            ("orange", 2),
            ("yellow", 3),
            ("green", 4),
            ("gray", 5),
            ("blue", 6),
            ("purple", 7),
            ("black", 8),
        )
    ]
    assert list(system.qubes) == [DOM0]
    assert system.properties == {"default_pool_kernel": "linux-kernel"}


def edited(old: str, new: str) -> str:
    assert STOCK.count(old) == 1
    return STOCK.replace(old, new)


def line_of(text: str, document: str) -> int:
    return document[: document.index(text)].count("\n") + 1


PROPERTY = '<property name="include_in_backups">True</property>'


@pytest.mark.parametrize(
    ("written", "properties"),
    [
        pytest.param('<property name="hvm">True</property>', {"virt_mode": "hvm"}, id="hvm"),
        pytest.param('<property name="hvm">False</property>', {"virt_mode": "pv"}, id="no-hvm"),
        pytest.param(
            '<property name="dispvm_allowed">True</property>',
            {"template_for_dispvms": True},
            id="dispvm_allowed",
        ),
        pytest.param('<property name="debug">yes</property>', {"debug": True}, id="another-word-for-true"),
        pytest.param('<property name="kernel"/>', {"kernel": ""}, id="own-boot-loader"),
        pytest.param('<property name="guivm" ref="tpl"/>', {"guivm": "tpl"}, id="ref"),
        pytest.param('<property name="later">x</property>', {"later": "x"}, id="of-a-later-version"),
        pytest.param(
            '<property name="default_dispvm">tpl</property>', {"default_dispvm": None}, id="dispvm-none"
        ),
        pytest.param('<property name="icon">x</property>', {}, id="computed"),
        pytest.param("<!-- by hand --><?by hand?>", {}, id="comment"),
    ],
)
def test_properties_as_earlier_versions_wrote_them(written: str, properties: dict[str, object]) -> None:
    system = load(edited(PROPERTY, written).encode())
    assert system.qubes["mail"].properties == {
        "label": "red",
        "netvm": None,
        "template": "tpl",
        **properties,
    }


DEVICE = '<device backend-domain="tpl" id="sda1" mode="auto-attach" identity="*">'


@pytest.mark.parametrize(
    ("device", "want"),
    [
        pytest.param('<device backend-domain="tpl" id="sda1">', [("sda1", "*", "required")], id="neither"),
        pytest.param(
            '<device backend-domain="tpl" id="sda1" required="True">',
            [("sda1", "*", "required")],
            id="required",
        ),
        pytest.param(
            '<device backend-domain="tpl" id="sda1" required="no">',
            [("sda1", "*", "auto-attach")],
            id="not-required",
        ),
        pytest.param(
            '<device backend-domain="tpl" id="*"><option name="identity">i</option>',
            [("*", "i", "required")],
            id="identity-as-option",
        ),
        pytest.param('<device backend-domain="gone" id="sda1">', [], id="backend-gone"),
        pytest.param('<device backend-domain="tpl" id="sda1" mode="manual">', [], id="unknown-mode"),
    ],
)
def test_devices_as_earlier_versions_wrote_them(device: str, want: list[tuple[str, ...]]) -> None:
    system = load(edited(DEVICE, device).encode())
    found = system.qubes["mail"].assignments
    assert [(one.port, one.identity, one.mode) for one in found] == want
    assert all(one.options == {"read-only": "yes"} for one in found)


def test_a_pci_address_with_a_colon() -> None:
    document = edited('class="block"', 'class="pci"').replace('<devices class="pci"/>', "")
    document = document.replace('id="sda1"', 'id="00:1f.2"')
    assert load(document.encode()).qubes["mail"].assignments[0].port == "00_1f.2"


def test_meminfo_writer_becomes_maxmem() -> None:
    mail = load(edited('"service.cups"', '"service.meminfo-writer"').encode()).qubes["mail"]
    assert mail.properties["maxmem"] == 0
    assert mail.features == {"menu-items": "thunderbird.desktop"}


def test_the_netvm_of_firewalls_becomes_their_own() -> None:
    document = edited(PROPERTY, '<property name="provides_network">True</property>')
    document = document.replace('<property name="netvm"/>', "")
    document = document.replace(
        '<property name="stats_interval">5</property>', '<property name="default_fw_netvm">tpl</property>'
    )
    system = load(document.encode())
    assert system.qubes["mail"].properties["netvm"] == "tpl"
    assert "default_fw_netvm" not in system.properties


def test_a_loop_of_netvms_is_cut() -> None:
    document = edited('<property name="netvm"/>', '<property name="netvm">tpl</property>')
    document = document.replace(
        '<property name="qid">1</property>',
        '<property name="qid">1</property><property name="netvm">mail</property>',
    )
    system = load(document.encode())
    netvms = [system.qubes[name].properties["netvm"] for name in ("mail", "tpl")]
    assert sorted(netvms, key=str) in ([None, "mail"], [None, "tpl"])


def test_a_missing_uuid_is_made() -> None:
    made = load(edited(f'<property name="uuid">{UUID}</property>', "").encode()).qubes["mail"].uuid
    assert made != UUID
    assert made[14] == "4"


def test_a_missing_dom0_is_made() -> None:
    start = STOCK.index('    <domain id="domain-0"')
    system = load((STOCK[:start] + STOCK[STOCK.index('    <domain id="domain-2"') :]).encode())
    assert system.qubes[DOM0].properties == {"label": "black"}


@pytest.mark.parametrize("version", ["3.0"])
def test_a_known_version(version: str) -> None:
    assert load(edited("<qubes>", f'<qubes version="{version}">').encode()) == load(STOCK.encode())


ENTITIES = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        pytest.param("<qubes>", '<qubes version="9">', '<qubes version="9">', id="version"),
        pytest.param("<qubes>", '<qubes version="">', '<qubes version="">', id="version-empty"),
        pytest.param('class="AppVM"', 'class="FooVM"', "FooVM", id="class"),
        pytest.param(' class="TemplateVM"', "", '"domain-1"', id="no-class"),
        pytest.param('class="TemplateVM"', 'class="AdminVM"', '"domain-1"', id="two-dom0"),
        pytest.param('<property name="name">tpl</property>', "", '"domain-1"', id="no-name"),
        pytest.param('<property name="qid">1</property>', "", '"domain-1"', id="no-qid"),
        pytest.param(
            '<property name="name">mail</property>',
            '<property name="name">tpl</property>',
            '"domain-1"',
            id="two-names",
        ),
        pytest.param(
            '<property name="name">mail<', '<property name="name">dom0<', '"domain-2"', id="name-of-dom0"
        ),
        pytest.param('<property name="name">mail<', '<property name="name">../x<', '"domain-2"', id="name"),
        pytest.param(
            '<property name="qid">1</property>',
            '<property name="qid">2</property>',
            '"domain-1"',
            id="two-qids",
        ),
        pytest.param(
            '<property name="qid">1</property>',
            '<property name="qid">0</property>',
            '"domain-1"',
            id="qid-of-dom0",
        ),
        pytest.param('<property name="qid">1<', '<property name="qid">10001<', '"domain-1"', id="qid"),
        pytest.param(f'"uuid">{UUID}', f'"uuid">2{UUID[1:]}', '"domain-1"', id="two-uuids"),
        pytest.param(f'"uuid">{UUID}', f'"uuid">{"0" * 36}', '"domain-2"', id="uuid"),
        pytest.param("label-1<", "label-7<", "label-7<", id="label-unknown"),
        pytest.param('<property name="label">label-1</property>', "", '"domain-2"', id="no-label"),
        pytest.param('<property name="template">tpl</property>', "", '"domain-2"', id="no-template"),
        pytest.param('"template">tpl', '"template">gone', '"template">gone', id="template-gone"),
        pytest.param('"template">tpl', '"template">mail', '"template">mail', id="template-class"),
        pytest.param('ref="tpl"', 'ref="gone"', 'ref="gone"', id="global-gone"),
        pytest.param(
            PROPERTY, '<property name="netvm">tpl</property>', '<property name="netvm"/>', id="property-twice"
        ),
        pytest.param(PROPERTY, '<property name="memory">much</property>', "much", id="number"),
        pytest.param(PROPERTY, '<property name="memory">0</property>', '"memory"', id="rule"),
        pytest.param(PROPERTY, "<property>x</property>", "<property>x", id="property-of-no-name"),
        pytest.param(PROPERTY, '<property name="debug"><b/></property>', '"debug"', id="element-for-text"),
        pytest.param("  <pools>", "  <pools/><pools>", "<pools/>", id="section-twice"),
        pytest.param("label-8", "label-5", "<labels>", id="index-twice"),
        pytest.param(">gray<", ">red<", '>red</label>\n    <label id="label-8"', id="label-twice"),
        pytest.param("label-8", "label-x", "label-x", id="index"),
        pytest.param("0x000000", "#00000", "#00000", id="color"),
        pytest.param(' name="linux-kernel"', "", '"linux-kernel"', id="pool-of-no-name"),
        pytest.param('size="10737418240"', 'size="big"', '<volume name="root"', id="volume-size"),
        pytest.param('internal="True"', 'ephemeral="perhaps"', '<volume name="kernel"', id="volume-flag"),
        pytest.param(
            'name="kernel" pool', 'name="root" pool', '<volume name="root" pool="linux', id="volume-twice"
        ),
        pytest.param("created-by-dom0", "created by", "<tags><tag", id="tag"),
        pytest.param("menu-items", "service.cups", '"service.cups">', id="feature-twice"),
        pytest.param('backend-domain="tpl" ', "", "<device ", id="device-of-nobody"),
        pytest.param("thunderbird.desktop", "\x0b", "\x0b", id="control-character"),
        pytest.param("thunderbird.desktop", "&bomb;", "&bomb;", id="unknown-entity"),
    ],
)
def test_damaged(old: str, new: str, at: str) -> None:
    document = edited(old, new) if old in STOCK else STOCK
    with pytest.raises(StoreError) as damaged:
        load(document.encode(), "/q/qubes.xml")
    where, line, _, what = f"{damaged.value}: ".split(":", 3)
    assert where == "/q/qubes.xml"
    assert abs(int(line) - line_of(at, document)) <= (1 if at.startswith("<volume") else 0)
    assert what


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 4096, id="zeros"),
        pytest.param(b"<QubesVmCollection/>", id="of-release-3"),
        pytest.param(b"<qubes/>", id="nothing-in-it"),
        pytest.param(b"<qubes><labels/></qubes>", id="no-domains"),
        pytest.param(b"<qubes><domains/></qubes>", id="no-labels"),
        pytest.param(b"<qubes><labels/><domains/></qubes>", id="no-label-for-dom0"),
        pytest.param(
            f'<!DOCTYPE qubes [<!ENTITY a "aaaaaaaaaa">{ENTITIES}]>{STOCK[40:]}'.encode(), id="document-type"
        ),
        pytest.param(
            f'<!DOCTYPE q [<!ENTITY a "aaaaaaaaaa">{ENTITIES}]><qubes version="&i;"/>'.encode(),
            id="bomb-in-attribute",
        ),
        pytest.param(
            f'<!DOCTYPE q [<!ENTITY a "aaaaaaaaaa">{ENTITIES}]><qubes>&i;</qubes>'.encode(), id="bomb-in-text"
        ),
        pytest.param(b'<!DOCTYPE q SYSTEM "file:///etc/passwd"><qubes/>', id="external-type"),
        pytest.param(
            b'<!DOCTYPE q [<!ENTITY x SYSTEM "file:///etc/passwd">]><qubes>&x;</qubes>', id="external-entity"
        ),
        pytest.param(b"<qubes>" + b"<a>" * 10000 + b"</a>" * 10000 + b"</qubes>", id="deep"),
    ],
)
def test_not_a_store(document: bytes) -> None:
    with pytest.raises(StoreError) as damaged:
        load(document)
    assert "root:" not in str(damaged.value)
    assert len(str(damaged.value)) < 300


def test_truncated_anywhere() -> None:
    data = STOCK.rstrip().encode()
    for length in range(0, len(data), 7):
        with pytest.raises(StoreError):
            load(data[:length])


@settings(max_examples=200)
@given(st.integers(0, len(STOCK) - 1), st.binary(min_size=1, max_size=4))
def test_any_damage_is_an_error_or_a_system(position: int, junk: bytes) -> None:
    data = STOCK.encode()
    data = data[:position] + junk + data[position + len(junk) :]
    try:
        system = load(data)
    except StoreError:
        return
    assert load(dump(system)) == system


def test_a_text_that_xml_cannot_hold() -> None:
    system = load(STOCK.encode())
    broken = system.with_qube(system.qubes["mail"].with_feature("x", "\0"))
    with pytest.raises(StoreError):
        dump(broken)
