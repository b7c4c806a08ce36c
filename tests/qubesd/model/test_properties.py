"""What each property is: lists, values, defaults, and what a Reset leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qubesd.errors import BadPropertyValue, BadValue, NoSuchProperty, QubeInUse, QubeNotHalted
from qubesd.model.properties import GLOBALS, check_reset, read, read_default, table, text
from qubesd.model.state import DOM0_UUID, Assignment, Klass, PoolConfig, Value
from qubesd.model.view import Host, Running
from tests.qubesd.model.views import StillView, world

LOCAL = """
    autostart backup_timestamp debug default_user devices_denied dns gateway gateway6 icon include_in_backups
    installed_by_rpm ip ip6 kernel keyboard_layout klass label mac maxmem memory name provides_network qid
    qrexec_timeout shutdown_timeout start_time stubdom_mem stubdom_uuid stubdom_xid updateable uuid vcpus
    virt_mode visible_gateway visible_gateway6 visible_ip visible_ip6 visible_netmask xid
"""
SYSTEM = """
    check_updates_vm clockvm default_audiovm default_dispvm default_guivm default_kernel default_netvm
    default_pool default_pool_kernel default_pool_private default_pool_root default_pool_volatile
    default_qrexec_timeout default_shutdown_timeout default_template management_dispvm maxmem no_cpus
    stats_interval updatevm
"""
ADMIN = "devices_denied icon include_in_backups keyboard_layout klass label maxmem name qid updateable uuid"
REFERRING = "audiovm bootmode default_dispvm guivm kernelopts management_dispvm netvm"


@pytest.mark.parametrize(
    ("klass", "plain", "referring"),
    [
        pytest.param(Klass.ADMIN, ADMIN, "default_dispvm", id="AdminVM"),
        pytest.param(Klass.TEMPLATE, LOCAL, REFERRING + " appvm_default_bootmode", id="TemplateVM"),
        pytest.param(Klass.STANDALONE, LOCAL + " template_for_dispvms", REFERRING, id="StandaloneVM"),
        pytest.param(Klass.APP, LOCAL + " template_for_dispvms", REFERRING + " template", id="AppVM"),
        pytest.param(
            Klass.DISPOSABLE, LOCAL + " auto_cleanup dispid is_preload", REFERRING + " template", id="DispVM"
        ),
        pytest.param(
            Klass.REMOTE,
            "icon include_in_backups klass label name qid remote_name transport_rpc uuid",
            "relayvm",
            id="RemoteVM",
        ),
    ],
)
def test_list(klass: Klass, plain: str, referring: str) -> None:
    assert list(table(klass)) == sorted(plain.split()) + sorted(referring.split())


def test_list_of_globals() -> None:
    assert list(GLOBALS) == sorted(SYSTEM.split())


@pytest.mark.parametrize("klass", Klass)
def test_every_property_says_what_it_is(klass: Klass) -> None:
    for name, line in {**table(klass), **GLOBALS}.items():
        assert line.name == name
        assert line.type in {"str", "int", "bool", "vm", "label"}
        assert line.doc.isascii()
        assert line.doc.isprintable()
        assert line.doc.endswith(".")


@pytest.mark.parametrize(
    ("name", "property_", "value", "is_default"),
    [
        pytest.param("work", "name", "work", False, id="name"),
        pytest.param("work", "qid", 4, False, id="qid"),
        pytest.param("work", "klass", "AppVM", True, id="klass"),
        pytest.param("work", "label", "red", False, id="label"),
        pytest.param("dom0", "name", "dom0", True, id="dom0-name"),
        pytest.param("dom0", "qid", 0, True, id="dom0-qid"),
        pytest.param("dom0", "uuid", DOM0_UUID, True, id="dom0-uuid"),
        pytest.param("dom0", "maxmem", 16000, True, id="dom0-maxmem"),
        pytest.param("disp7", "dispid", 7, False, id="dispid"),
        pytest.param("work", "memory", 400, True, id="memory"),
        pytest.param("work", "vcpus", 2, True, id="vcpus"),
        pytest.param("work", "kernel", "6.12", True, id="kernel-global"),
        pytest.param("work", "kernelopts", "swiotlb=2048", True, id="kernelopts"),
        pytest.param("work", "default_user", "user", True, id="default_user"),
        pytest.param("work", "virt_mode", "pvh", True, id="virt_mode"),
        pytest.param("work", "mac", "00:16:3e:5e:6c:00", True, id="mac"),
        pytest.param("work", "backup_timestamp", None, True, id="backup_timestamp"),
        pytest.param("work", "xid", -1, True, id="xid"),
        pytest.param("work", "stubdom_xid", -1, True, id="stubdom_xid"),
        pytest.param("work", "start_time", None, True, id="start_time"),
        pytest.param("work", "updateable", False, True, id="updateable-app"),
        pytest.param("debian", "updateable", True, True, id="updateable-template"),
        pytest.param("alone", "updateable", True, True, id="updateable-standalone"),
        pytest.param("work", "guivm", "dom0", True, id="guivm"),
        pytest.param("work", "audiovm", "dom0", True, id="audiovm"),
        pytest.param("work", "qrexec_timeout", 60, True, id="qrexec_timeout"),
        pytest.param("work", "default_dispvm", None, True, id="default_dispvm"),
        pytest.param("disp7", "default_dispvm", "web-dvm", True, id="default_dispvm-of-a-disposable"),
        pytest.param("disp7", "include_in_backups", False, True, id="backup-cleaned-up"),
        pytest.param("work", "include_in_backups", True, True, id="backup"),
        pytest.param("far", "include_in_backups", False, True, id="backup-remote"),
        pytest.param("far", "relayvm", None, True, id="relayvm"),
        pytest.param("debian", "appvm_default_bootmode", "default", True, id="appvm_default_bootmode"),
        pytest.param("debian", "netvm", None, True, id="netvm-of-a-template"),
    ],
)
def test_read(name: str, property_: str, value: Value, is_default: bool) -> None:
    view = world()
    reading = read(view, view[name], property_)
    assert (reading.value, reading.is_default, reading.has_value) == (value, is_default, True)


@pytest.mark.parametrize(
    ("property_", "value"),
    [
        pytest.param("check_updates_vm", True, id="flag"),
        pytest.param("default_guivm", "dom0", id="guivm"),
        pytest.param("default_pool", "varlibqubes", id="pool"),
        pytest.param("default_pool_private", "varlibqubes", id="pool-private"),
        pytest.param("maxmem", 16000, id="memory-of-the-host"),
        pytest.param("no_cpus", 4, id="processors-of-the-host"),
        pytest.param("stats_interval", 3, id="interval"),
    ],
)
def test_read_global(property_: str, value: Value) -> None:
    reading = read(world(), None, property_)
    assert (reading.value, reading.is_default) == (value, True)


def test_a_pool_called_default_is_the_default() -> None:
    view = world()
    view = replace(view, system=view.system.with_pool(PoolConfig("default", "file", {})))
    assert read(view, None, "default_pool").value == "default"
    assert read(view.globally(default_pool="varlibqubes"), None, "default_pool_root").value == "varlibqubes"


@pytest.mark.parametrize(
    ("owner", "property_"),
    [
        pytest.param("work", "nosuch", id="unknown"),
        pytest.param("dom0", "xid", id="not-of-dom0"),
        pytest.param("debian", "template", id="not-of-a-template"),
        pytest.param("far", "netvm", id="not-of-a-remote"),
        pytest.param(None, "netvm", id="not-global"),
    ],
)
def test_no_such_property(owner: str | None, property_: str) -> None:
    view = world()
    qube = None if owner is None else view[owner]
    for ask in (read, read_default, check_reset):
        with pytest.raises(NoSuchProperty):
            ask(view, qube, property_)


@pytest.mark.parametrize(
    ("owner", "property_"),
    [("work", "label"), ("work", "name"), ("work", "uuid"), ("work", "template"), (None, "default_template")],
)
def test_no_default(owner: str | None, property_: str) -> None:
    view = world()
    assert not read_default(view, None if owner is None else view[owner], property_).has_value


def test_neither_set_nor_default() -> None:
    reading = read(world(), None, "default_template")
    assert (reading.value, reading.is_default, reading.has_value) == (None, True, False)


@pytest.mark.parametrize(
    ("property_", "value"),
    [
        ("default_user", "alice"),
        ("kernel", "6.6"),
        ("kernelopts", "quiet"),
        ("vcpus", 3),
        ("memory", 512),
        ("qrexec_timeout", 70),
        ("shutdown_timeout", 70),
        ("management_dispvm", "web-dvm"),
        ("virt_mode", "hvm"),
    ],
)
def test_a_default_follows_the_template(property_: str, value: Value) -> None:
    view = world()
    changed = view.put("debian", **{property_: value})
    before = read_default(view, view["debian"], property_)
    assert read_default(changed, changed["debian"], property_) == before
    for name in ("work", "disp7"):
        assert read(changed, changed[name], property_).value == value
    between = changed.put("web-dvm", **{property_: None})
    assert read(between, between["disp7"], property_).value is None


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("dom0", "adminvm-black"),
        ("debian", "templatevm-red"),
        ("web-dvm", "templatevm-red"),
        ("work", "appvm-red"),
        ("disp7", "dispvm-red"),
        ("alone", "standalonevm-red"),
        ("far", "remotevm-red"),
    ],
)
def test_icon(name: str, want: str) -> None:
    view = world()
    assert read(view, view[name], "icon").value == want
    green = view.put(name, label="green")
    assert read(green, green[name], "icon").value == want.replace("red", "green")


def test_icon_of_a_service() -> None:
    view = world().feature("work", "servicevm", "1")
    assert read(view, view["work"], "icon").value == "servicevm-red"
    off = view.feature("work", "servicevm", "")
    assert read(off, off["work"], "icon").value == "appvm-red"


def test_keyboard_layout_follows_the_guivms() -> None:
    view = world().put("alone", guivm="vault").put("vault", keyboard_layout="pl++").put("work", guivm="alone")
    assert read(view, view["work"], "keyboard_layout").value == "pl++"
    dom0 = world().put("dom0", keyboard_layout="de++")
    assert read(dom0, dom0["work"], "keyboard_layout").value == "de++"


def test_keyboard_layout_of_guivms_in_a_circle() -> None:
    view = world().put("alone", guivm="vault").put("vault", guivm="alone").put("work", guivm="work")
    assert [read(view, view[name], "keyboard_layout").value for name in ("alone", "work")] == ["us++", "us++"]


PCI = (Assignment("pci", "dom0", "00_1f.2"),)


def with_pci(view: StillView, name: str) -> StillView:
    return replace(view, system=view.system.with_qube(replace(view[name], assignments=PCI)))


def balanced(view: StillView) -> StillView:
    return replace(view, host=Host(16000, 4, balances_memory=True))


@pytest.mark.parametrize(
    ("view", "want"),
    [
        pytest.param(world(), 0, id="memory-stays-where-it-is"),
        pytest.param(balanced(world()), 4000, id="other-system"),
        pytest.param(balanced(world()).feature("debian", "os", "Linux"), 4000, id="linux"),
        pytest.param(
            balanced(world()).feature("debian", "os", "Linux").put("debian", memory=300), 3000, id="ten-fold"
        ),
        pytest.param(
            balanced(world()).feature("debian", "os", "Linux").put("debian", memory=2000),
            8000,
            id="half-of-host",
        ),
        pytest.param(balanced(world()).put("debian", maxmem=700), 700, id="template"),
        pytest.param(with_pci(balanced(world()), "work"), 0, id="pci"),
        pytest.param(balanced(world()).put("work", virt_mode="hvm"), 0, id="hvm-that-is-silent"),
        pytest.param(
            balanced(world()).put("work", virt_mode="hvm").feature("debian", "qrexec", "1"),
            4000,
            id="hvm-that-tells",
        ),
    ],
)
def test_maxmem(view: StillView, want: int) -> None:
    assert read(view, view["work"], "maxmem").value == want


def test_a_pci_device_asks_for_a_full_machine() -> None:
    view = with_pci(world(), "work")
    assert read(view, view["work"], "virt_mode").value == "hvm"
    with pytest.raises(BadPropertyValue):
        table(Klass.APP)["virt_mode"].check(view, view["work"], "pvh")


@pytest.mark.parametrize(
    ("view", "want"),
    [
        pytest.param(world().put("work", kernel=""), "", id="own-boot-loader"),
        pytest.param(
            replace(world(), options={("6.12", False): "quiet"}), "quiet", id="the-kernel-brings-some"
        ),
        pytest.param(replace(world(), options={("6.12", False): ""}), "", id="the-kernel-brings-none"),
        pytest.param(with_pci(world(), "work"), "", id="pci"),
        pytest.param(
            replace(with_pci(world(), "work"), options={("6.12", True): "iommu"}), "iommu", id="pci-brought"
        ),
        pytest.param(
            with_pci(world(), "work").feature("dom0", "suspend-s0ix", "1"),
            " qubes_exp_pm_use_suspend=1",
            id="s0ix",
        ),
        pytest.param(world().put("debian", kernelopts="x"), "x", id="template"),
    ],
)
def test_kernelopts(view: StillView, want: str) -> None:
    assert read(view, view["work"], "kernelopts").value == want


@pytest.mark.parametrize(
    ("view", "want"),
    [
        pytest.param(world(), "default", id="plain"),
        pytest.param(world().feature("work", "boot-mode.active", "paranoid"), "default", id="unknown"),
        pytest.param(
            world()
            .feature("work", "boot-mode.active", "paranoid")
            .feature("debian", "boot-mode.kernelopts.paranoid", "x"),
            "paranoid",
            id="own",
        ),
        pytest.param(
            world()
            .feature("debian", "boot-mode.appvm-default", "paranoid")
            .feature("debian", "boot-mode.kernelopts.paranoid", "x"),
            "paranoid",
            id="template",
        ),
        pytest.param(
            world()
            .put("debian", appvm_default_bootmode="paranoid")
            .feature("debian", "boot-mode.kernelopts.paranoid", ""),
            "paranoid",
            id="template-property",
        ),
    ],
)
def test_bootmode(view: StillView, want: str) -> None:
    assert read(view, view["work"], "bootmode").value == want


def test_bootmode_of_a_disposable_is_from_the_template_of_its_template() -> None:
    view = (
        world()
        .feature("debian", "boot-mode.appvm-default", "paranoid")
        .feature("debian", "boot-mode.kernelopts.paranoid", "x")
    )
    assert read(view, view["disp7"], "bootmode").value == "paranoid"


def test_a_run() -> None:
    view = replace(world(), run={"work": Running("Running", 12, 1900000000.5, 13, "u")})
    want = {"xid": 12, "start_time": "1900000000.5", "stubdom_xid": 13, "stubdom_uuid": "u"}
    assert {name: read(view, view["work"], name).value for name in want} == want


def test_is_preload() -> None:
    view = world().feature("web-dvm", "preload-dispvm", "disp1 disp7")
    assert read(view, view["disp7"], "is_preload").value is True
    assert read(world(), world()["disp7"], "is_preload").value is False


@pytest.mark.parametrize(
    ("view", "owner", "property_", "error"),
    [
        pytest.param(world(), "work", "label", BadValue, id="label"),
        pytest.param(world(), "work", "template", BadValue, id="template"),
        pytest.param(world(), "work", "name", BadPropertyValue, id="name"),
        pytest.param(world(), "disp7", "dispid", BadPropertyValue, id="dispid"),
        pytest.param(
            world().globally(default_netvm="sys-firewall"), "sys-net", "netvm", BadValue, id="netvm-loop"
        ),
        pytest.param(world(), "sys-net", "provides_network", BadValue, id="netvm-in-use"),
        pytest.param(world(), "web-dvm", "template_for_dispvms", QubeInUse, id="disposable-template-in-use"),
        pytest.param(
            world().put("work", maxmem=500).up("work"), "work", "maxmem", QubeNotHalted, id="maxmem-running"
        ),
    ],
)
def test_reset_refused(view: StillView, owner: str, property_: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_reset(view, view[owner], property_)


@pytest.mark.parametrize(
    ("owner", "property_"),
    [
        ("work", "memory"),
        ("work", "klass"),
        ("work", "netvm"),
        ("vault", "provides_network"),
        (None, "default_netvm"),
    ],
)
def test_reset(owner: str | None, property_: str) -> None:
    view = world()
    check_reset(view, None if owner is None else view[owner], property_)


@pytest.mark.parametrize(
    ("value", "want"), [(None, ""), (True, "True"), (False, "False"), (0, "0"), (-1, "-1"), ("a", "a")]
)
def test_text(value: Value, want: str) -> None:
    assert text(value) == want
