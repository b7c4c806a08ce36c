"""What Set takes, and what it refuses with which error: the property's own rule and the state of the
system."""

from __future__ import annotations

import pytest

from qubesd.errors import BadPropertyValue, BadValue, NoSuchLabel, QubeInUse, QubeNotHalted, QubesError
from qubesd.model.properties import GLOBALS, Settable, find, table
from qubesd.model.state import Klass, Value
from tests.qubesd.model.views import StillView, world


def set_(view: StillView, owner: str | None, name: str, payload: bytes) -> Value:
    """Both steps, as a call takes them."""
    qube = None if owner is None else view[owner]
    line = find(qube, name)
    return line.check(view, qube, line.coarse(payload))


@pytest.mark.parametrize(
    ("owner", "name", "payload", "value"),
    [
        pytest.param("work", "memory", b" 7", 7, id="memory"),
        pytest.param("work", "maxmem", b"0", 0, id="maxmem-none"),
        pytest.param("work", "virt_mode", b"HVM", "hvm", id="mode-folded"),
        pytest.param("work", "kernel", b"", "", id="own-boot-loader"),
        pytest.param("work", "kernel", b"6.6", "6.6", id="kernel"),
        pytest.param("work", "kernelopts", b"x" * 512, "x" * 512, id="options-longest"),
        pytest.param("work", "default_user", b"", "", id="user-empty"),
        pytest.param("work", "default_user", b"a_b-c+d,e.f", "a_b-c+d,e.f", id="user"),
        pytest.param(
            "work", "keyboard_layout", b"de+nodeadkeys+compose:caps", "de+nodeadkeys+compose:caps", id="keys"
        ),
        pytest.param("dom0", "keyboard_layout", b"us+dvorak+", "us+dvorak+", id="dom0-keys"),
        pytest.param("work", "devices_denied", b"", "", id="denied-none"),
        pytest.param(
            "work", "devices_denied", b"m******b******b******", "b******m******", id="denied-sorted"
        ),
        pytest.param("work", "label", b"green", "green", id="label"),
        pytest.param("work", "template", b"debian", "debian", id="template"),
        pytest.param("disp7", "template", b"web-dvm", "web-dvm", id="disposable-template"),
        pytest.param("work", "default_dispvm", b"web-dvm", "web-dvm", id="default_dispvm"),
        pytest.param("work", "guivm", b"", None, id="none"),
        pytest.param("far", "relayvm", b"dom0", "dom0", id="relay"),
        pytest.param(None, "default_template", b"debian", "debian", id="default_template"),
        pytest.param(None, "default_template", b"", None, id="default_template-none"),
        pytest.param(None, "default_pool", b"varlibqubes", "varlibqubes", id="pool"),
        pytest.param(None, "default_kernel", b"6.6", "6.6", id="default_kernel"),
        pytest.param(None, "clockvm", b"work", "work", id="clockvm"),
        pytest.param(None, "management_dispvm", b"web-dvm", "web-dvm", id="management"),
    ],
)
def test_set(owner: str | None, name: str, payload: bytes, value: Value) -> None:
    assert set_(world(), owner, name, payload) == value


RUNNING = world().up("work")


def test_a_maxmem_that_stays_is_no_change_of_a_running_qube() -> None:
    assert set_(world().put("work", maxmem=500).up("work"), "work", "maxmem", b"500") == 500
    assert set_(RUNNING, "work", "maxmem", b"0") == 0  # nothing balances memory there


@pytest.mark.parametrize(
    ("view", "owner", "name", "payload", "error"),
    [
        *(
            pytest.param(world(), "work", name, payload, BadPropertyValue, id=f"{name}-{payload!r}")
            for name in ("memory", "vcpus", "qrexec_timeout", "shutdown_timeout", "stubdom_mem")
            for payload in (b"0", b"-5")
        ),
        pytest.param(world(), "work", "vcpus", b"8193", BadPropertyValue, id="vcpus-too-many"),
        pytest.param(world(), "work", "memory", b"x", BadValue, id="memory-x"),
        pytest.param(world(), "work", "maxmem", b"-1", BadPropertyValue, id="maxmem-negative"),
        pytest.param(RUNNING, "work", "maxmem", b"500", QubeNotHalted, id="maxmem-running"),
        pytest.param(world(), "work", "virt_mode", b"xen", BadPropertyValue, id="mode"),
        pytest.param(world(), "work", "virt_mode", b"", BadPropertyValue, id="mode-empty"),
        pytest.param(world(), "work", "kernel", b"nosuch", BadPropertyValue, id="kernel-unknown"),
        pytest.param(world(), "work", "kernel", b"../6.12", BadPropertyValue, id="kernel-outside"),
        pytest.param(world(), "work", "kernel", b"..", BadPropertyValue, id="kernel-above"),
        pytest.param(world(), "work", "kernelopts", b"x" * 513, BadPropertyValue, id="options-long"),
        pytest.param(world(), "work", "default_user", b"a b", BadPropertyValue, id="user-blank"),
        pytest.param(world(), "work", "default_user", b"a\nb", BadPropertyValue, id="user-line-end"),
        pytest.param(world(), "work", "default_user", b"root\n", BadPropertyValue, id="user-last-line-end"),
        pytest.param(world(), "work", "default_user", b"x\0y", BadValue, id="user-nul"),
        *(
            pytest.param(
                world(), "work", "keyboard_layout", payload, BadPropertyValue, id=f"keys-{payload!r}"
            )
            for payload in (b"us", b"us+", b"+x+", b"us+++", b"", b"us++\n")
        ),
        pytest.param(world(), "work", "devices_denied", b"b*****", BadValue, id="denied-short"),
        pytest.param(world(), "work", "devices_denied", b"x******", BadPropertyValue, id="denied-letter"),
        pytest.param(world(), "work", "devices_denied", b"b*****B", BadPropertyValue, id="denied-case"),
        pytest.param(world(), "work", "label", b"nosuch", NoSuchLabel, id="label"),
        pytest.param(world(), "work", "label", b"", NoSuchLabel, id="label-empty"),
        pytest.param(world(), "work", "label", b"2", NoSuchLabel, id="label-index"),
        *(
            pytest.param(world(), "work", "template", payload, BadPropertyValue, id=f"template-{payload!r}")
            for payload in (b"alone", b"work", b"nosuch", b"", b"dom0", b"far")
        ),
        pytest.param(RUNNING, "work", "template", b"debian", QubeNotHalted, id="template-running"),
        pytest.param(
            world().up("disp7"), "web-dvm", "template", b"debian", QubeInUse, id="template-of-running"
        ),
        pytest.param(world(), "disp7", "template", b"debian", BadPropertyValue, id="disposable-of-template"),
        pytest.param(world(), "disp7", "template", b"", BadPropertyValue, id="disposable-of-none"),
        pytest.param(
            world().up("disp7"), "disp7", "template", b"web-dvm", QubeNotHalted, id="disposable-running"
        ),
        *(
            pytest.param(
                world(), owner, "default_dispvm", payload, BadPropertyValue, id=f"dispvm-{owner}-{payload!r}"
            )
            for owner in ("work", "dom0", None)
            for payload in (b"work", b"debian", b"nosuch", b"dom0")
        ),
        pytest.param(world(), "work", "guivm", b"far", BadPropertyValue, id="remote"),
        pytest.param(world(), "work", "guivm", b"nosuch", BadPropertyValue, id="unknown"),
        pytest.param(world(), "far", "relayvm", b"far", BadPropertyValue, id="relay-remote"),
        pytest.param(world(), None, "default_template", b"work", BadPropertyValue, id="default_template"),
        pytest.param(world(), None, "default_pool_private", b"", BadPropertyValue, id="pool-empty"),
        pytest.param(world(), None, "default_pool", b"nosuch", BadPropertyValue, id="pool"),
        pytest.param(world(), None, "default_kernel", b"nosuch", BadPropertyValue, id="default_kernel"),
        pytest.param(world(), None, "stats_interval", b"0", BadPropertyValue, id="interval"),
    ],
)
def test_refused(
    view: StillView, owner: str | None, name: str, payload: bytes, error: type[QubesError]
) -> None:
    with pytest.raises(error) as refused:
        set_(view, owner, name, payload)
    assert refused.type is error


@pytest.mark.parametrize("klass", Klass)
def test_what_cannot_be_set(klass: Klass) -> None:
    view = world()
    owner = next(qube for qube in view.system.qubes.values() if qube.klass is klass)
    lines = (*table(klass).values(), *GLOBALS.values())
    fixed = {line.name: line for line in lines if line.settable is not Settable.YES}
    assert fixed.keys() >= {"name", "uuid", "qid", "klass", "icon", "no_cpus"}
    for line in fixed.values():
        with pytest.raises(BadPropertyValue):
            line.check(view, owner, None)


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(world(), id="template-of-a-disposable"),
        pytest.param(
            world().put("disp7", template="alone").put("work", default_dispvm="web-dvm"), id="own-setting"
        ),
        pytest.param(
            world().put("disp7", template="alone").put("work", management_dispvm="web-dvm"), id="management"
        ),
        pytest.param(world().put("disp7", template="alone").globally(default_dispvm="web-dvm"), id="global"),
        pytest.param(
            world().put("disp7", template="alone").globally(management_dispvm="web-dvm"),
            id="global-management",
        ),
    ],
)
def test_a_template_for_disposables_in_use_stays_one(view: StillView) -> None:
    with pytest.raises(QubeInUse) as refused:
        set_(view, "web-dvm", "template_for_dispvms", b"False")
    assert "work" not in str(refused.value)
    assert "disp7" not in str(refused.value)


def test_a_template_for_disposables_of_its_own_only() -> None:
    view = world().put("disp7", template="alone").put("web-dvm", default_dispvm="web-dvm")
    assert set_(view, "web-dvm", "template_for_dispvms", b"no") is False


def test_preloaded_disposables_do_not_hold_a_template() -> None:
    view = world().up("disp7", state="Paused").feature("web-dvm", "preload-dispvm", "disp7")
    assert set_(view, "web-dvm", "template", b"debian") == "debian"
