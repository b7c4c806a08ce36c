from __future__ import annotations

from dataclasses import replace

import pytest

from qubesd.errors import QubesError, StorageError
from qubesd.model.state import Klass, PoolConfig, Qube, VolumeConfig
from qubesd.model.volumes import GIB, follow_template, layout
from tests.qubesd.model.views import StillView, world


def placed(*names: str) -> StillView:
    """The world, these qubes with their volumes, and a second pool."""
    view = world()
    view = replace(view, system=view.system.with_pool(PoolConfig("fast", "file", {"revisions_to_keep": "0"})))
    for name in names:
        view = with_volumes(view, view[name])
    return view


def with_volumes(view: StillView, qube: Qube) -> StillView:
    return replace(view, system=view.system.with_qube(replace(qube, volumes=layout(view, qube))))


VOLATILE = VolumeConfig("volatile", "varlibqubes", "appvms/work/volatile", 1, rw=True, size=10 * GIB)
KERNEL = VolumeConfig("kernel", "linux-kernel", "6.12")


def test_app() -> None:
    view = placed("debian")
    assert layout(view, view["work"]) == {
        "root": VolumeConfig(
            *("root", "varlibqubes", "appvms/work/root", 1),
            rw=True,
            snap_on_start=True,
            size=10 * GIB,
            source="vm-templates/debian/root",
        ),
        "private": VolumeConfig(
            "private", "varlibqubes", "appvms/work/private", 1, rw=True, save_on_stop=True, size=2 * GIB
        ),
        "volatile": VOLATILE,
        "kernel": KERNEL,
    }


@pytest.mark.parametrize(("name", "folder"), [("debian", "vm-templates/debian"), ("alone", "appvms/alone")])
def test_own_root(name: str, folder: str) -> None:
    view = placed()
    root = layout(view, view[name])["root"]
    assert root == VolumeConfig(
        "root", "varlibqubes", f"{folder}/root", 1, rw=True, save_on_stop=True, size=10 * GIB
    )


def test_a_disposable_has_its_root_from_the_template_and_its_private_from_the_app() -> None:
    view = placed("debian", "web-dvm")
    volumes = layout(view, view["disp7"])
    assert (volumes["root"].source, volumes["private"].source) == (
        "vm-templates/debian/root",
        "appvms/web-dvm/private",
    )
    assert volumes["volatile"].size == 12 * GIB
    assert not any(volume.save_on_stop for volume in volumes.values())


@pytest.mark.parametrize("name", ["dom0", "far"])
def test_none(name: str) -> None:
    assert layout(world(), world()[name]) == {}


def test_a_pool_for_all_that_is_its_own() -> None:
    view = placed("debian")
    volumes = layout(view, view["work"], "fast")
    assert {name: volume.pool for name, volume in volumes.items()} == {
        "root": "varlibqubes",
        "private": "fast",
        "volatile": "fast",
        "kernel": "linux-kernel",
    }
    assert volumes["private"].revisions_to_keep == 0


def test_pools_for_single_volumes() -> None:
    view = placed("debian")
    volumes = layout(view, view["alone"], pools={"root": "fast"})
    assert (volumes["root"].pool, volumes["private"].pool) == ("fast", "varlibqubes")


def test_a_snapshot_is_in_the_pool_of_its_source() -> None:
    view = placed()
    debian = replace(view["debian"], volumes=layout(view, view["debian"], "fast"))
    view = replace(view, system=view.system.with_qube(debian))
    assert layout(view, view["work"])["root"].pool == "fast"


@pytest.mark.parametrize(
    ("pool", "pools", "error"),
    [
        pytest.param("nosuch", {}, QubesError, id="pool"),
        pytest.param(None, {"private": "nosuch"}, QubesError, id="pool-of-one"),
        pytest.param(None, {"root": "fast"}, QubesError, id="snapshot"),
        pytest.param("linux-kernel", {}, StorageError, id="pool-of-kernels"),
    ],
)
def test_refused(pool: str | None, pools: dict[str, str], error: type[Exception]) -> None:
    view = placed("debian")
    with pytest.raises(error):
        layout(view, view["work"], pool, pools)


def test_a_template_without_volumes() -> None:
    with pytest.raises(StorageError):
        layout(world(), world()["work"])


def test_follow_template() -> None:
    view = placed("debian", "web-dvm", "disp7")
    fedora = replace(view["debian"], name="fedora", qid=20, uuid="00000000-0000-4000-8000-000000000020")
    view = with_volumes(replace(view, system=view.system.with_qube(fedora)), fedora)
    view = view.put("web-dvm", template="fedora")
    for name in ("web-dvm", "disp7"):
        followed = follow_template(view, view[name])
        assert followed["root"].source == "vm-templates/fedora/root"
        assert followed["private"] == view[name].volumes["private"]
    assert view["web-dvm"].klass is Klass.APP
