from __future__ import annotations

import pytest

from qubesd.errors import BadValue
from qubesd.model import features
from tests.qubesd.model.views import StillView, world


@pytest.mark.parametrize(
    ("owner", "with_template", "with_netvm"),
    [
        pytest.param("work", "debian", "sys-net", id="app"),
        pytest.param("disp7", "debian", None, id="disposable"),
        pytest.param("sys-net", "sys-net", "sys-net", id="its-own"),
        pytest.param("far", None, None, id="remote"),
        pytest.param("dom0", "dom0", "dom0", id="dom0"),
    ],
)
def test_chains(owner: str, with_template: str | None, with_netvm: str | None) -> None:
    view = world()
    for name in ("dom0", "debian", "sys-net"):
        view = view.feature(name, "f", name)
    found = [look(view, view[owner], "f") for look in (features.with_template, features.with_netvm)]
    assert found == [with_template, with_netvm]


def test_an_empty_value_is_a_hit() -> None:
    view = world().feature("debian", "f", "x").feature("web-dvm", "f", "")
    assert features.with_template(view, view["disp7"], "f") == ""


PRELOADING = (
    world()
    .feature("debian", "qrexec", "1")
    .feature("debian", "supported-rpc.qubes.WaitForRunningSystem", "1")
    .feature("debian", "supported-rpc.qubes.WaitForSession", "1")
)


@pytest.mark.parametrize(
    ("view", "owner", "name", "value"),
    [
        pytest.param(world(), "work", "anything.at-all", "", id="free"),
        pytest.param(world(), "work", "service.cups", "1", id="service"),
        pytest.param(world(), "work", "service." + "b" * 48, "1", id="service-longest"),
        pytest.param(world(), "work", "service.app-dispvm." + "b" * 60, "1", id="service-app-dispvm"),
        pytest.param(world(), "work", "vm-config.a", "x", id="vm-config"),
        pytest.param(world(), "work", "vm-config.a" + "b" * 51, "x", id="vm-config-longest"),
        pytest.param(world(), "work", "custom-persist.home", "/home/user", id="persist-path"),
        pytest.param(world(), "work", "custom-persist.d", "dir:user:user:0755:/x", id="persist-dir"),
        pytest.param(world(), "work", "custom-persist.f", "file:root:root:644:/x", id="persist-file"),
        pytest.param(PRELOADING, "web-dvm", "preload-dispvm-max", "2", id="preload"),
        pytest.param(world(), "dom0", "preload-dispvm-max", "2", id="preload-no-default"),
        pytest.param(world(), "work", "preload-dispvm-delay", "-1.5", id="delay"),
        pytest.param(world(), "dom0", "preload-dispvm-threshold", "500", id="threshold"),
    ],
)
def test_accepted(view: StillView, owner: str, name: str, value: str) -> None:
    features.check(view, view[owner], name, value)


@pytest.mark.parametrize(
    ("view", "owner", "name", "value"),
    [
        *(
            pytest.param(world(), "work", f"service.{name}", "1", id=f"service-{name}")
            for name in ("", ".", "..", "a/b", "a" * 49)
        ),
        *(
            pytest.param(world(), "work", f"vm-config.{name}", "x", id=f"vm-config-{name}")
            for name in ("", "1a", "a" * 53)
        ),
        *(
            pytest.param(world(), "work", "custom-persist.bad", value, id=f"persist-{value}")
            for value in (
                "",
                "home/user",
                "dir:user:user:99:/x",
                "dir:user:user:0755:x",
                "dir:::0755:/x",
                "x:a:b:0755:/x",
            )
        ),
        pytest.param(world(), "work", "custom-persist." + "a" * 55, "/x", id="persist-long"),
        pytest.param(world(), "work", "custom-persist.", "/x", id="persist-empty"),
        pytest.param(PRELOADING, "web-dvm", "preload-dispvm-max", "x", id="preload-x"),
        pytest.param(world(), "web-dvm", "preload-dispvm-max", "2", id="preload-no-agent"),
        pytest.param(
            world().globally(default_dispvm="web-dvm"), "dom0", "preload-dispvm-max", "2", id="preload-dom0"
        ),
        pytest.param(world(), "dom0", "preload-dispvm-max", "x", id="preload-dom0-x"),
        pytest.param(world(), "work", "preload-dispvm-delay", "soon", id="delay"),
        pytest.param(world(), "work", "preload-dispvm-threshold", "500", id="threshold-not-dom0"),
        pytest.param(world(), "dom0", "preload-dispvm-threshold", "x", id="threshold-x"),
    ],
)
def test_refused(view: StillView, owner: str, name: str, value: str) -> None:
    with pytest.raises(BadValue):
        features.check(view, view[owner], name, value)


def test_meminfo_writer_is_another_word_for_maxmem() -> None:
    work = world()["work"]
    off = features.apply(work, features.BALANCED, "")
    assert (off.properties["maxmem"], off.features) == (0, {})
    on = features.apply(off, features.BALANCED, "1")
    assert "maxmem" not in on.properties


def test_any_other_feature_is_set() -> None:
    assert features.apply(world()["work"], "f", "1").features == {"f": "1"}
