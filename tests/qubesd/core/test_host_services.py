"""dom0's services are files that its units look for."""

from __future__ import annotations

from pathlib import Path

from tests.qubesd.house import House, visit

SET, REMOVE = "admin.vm.feature.Set", "admin.vm.feature.Remove"


def files(root: Path) -> list[str]:
    folder = root / "run/qubes-service"
    return sorted(place.name for place in folder.iterdir()) if folder.exists() else []


def test_files_follow_the_features(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        assert not (tmp_path / "run/qubes-service").exists()
        await house.do(SET, "work", "service.cups", "1")
        await house.do(SET, "dom0", "service.cups", "1")
        await house.do("admin.property.Set", "dom0", "clockvm", "dom0")
        assert files(tmp_path) == ["clocksync", "cups"]
        await house.do(SET, "dom0", "service.cups", "")
        await house.do("admin.property.Set", "dom0", "clockvm", "")
        assert files(tmp_path) == []
        await house.do(SET, "dom0", "service.cups", "1")
        await house.do(REMOVE, "dom0", "service.cups")
        assert files(tmp_path) == []

    visit(tmp_path, guest)


def test_a_host_that_boots_has_them_again(tmp_path: Path) -> None:
    async def before(house: House) -> None:
        await house.do(SET, "dom0", "service.cups", "1")
        await house.do(SET, "dom0", "service.off", "")

    async def after(house: House) -> None:
        assert files(tmp_path) == ["cups", "mine"]

    visit(tmp_path, before, furnished=False)
    (tmp_path / "run/qubes-service/cups").unlink()
    for name in ("off", "mine"):
        (tmp_path / "run/qubes-service" / name).touch()
    visit(tmp_path, after, furnished=False)


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/kept").touch()

    async def guest(house: House) -> None:
        dom0 = house.qube("dom0")
        for name in ("..", ".", "../kept", "/tmp/x", ""):
            dom0 = dom0.with_feature(f"service.{name}", "")
        house.core.change(house.core.system.with_qube(dom0), ("dom0",))
        assert (tmp_path / "run/kept").exists()
        assert files(tmp_path) == []

    visit(tmp_path, guest)
