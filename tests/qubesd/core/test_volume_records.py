"""What is noted of volumes, and what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qubesd.core.volume_records import VolumeRecords
from tests.qubesd.house import House, visit

MIB = 1 << 20


@pytest.mark.parametrize("factor", [2, 0.5], ids=["larger", "smaller"])
def test_a_size_that_was_noted_and_not_reached_is_noted_anew(
    factor: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: list[int] = []

    async def cut_short(house: House) -> None:
        qube = house.qube("work")
        volume = qube.volumes["private"]
        sizes.append(volume.size)
        other = replace(volume, size=int(volume.size * factor))
        await VolumeRecords(house.core, house.core.storage).put(qube, other, limited=False)

    async def again(house: House) -> None:
        sizes.append(house.qube("work").volumes["private"].size)

    visit(tmp_path, cut_short)
    visit(tmp_path, again, furnished=False)
    assert sizes == [sizes[0]] * 2
    assert "bytes, and" in caplog.text


def test_a_pool_that_is_not_there_keeps_nobody_from_starting(tmp_path: Path) -> None:
    async def lost(house: House) -> None:
        house.core.config.qubes_dir.joinpath("appvms").rename(tmp_path / "elsewhere")

    async def again(house: House) -> None:
        assert house.qube("work").volumes["private"].size > MIB

    visit(tmp_path, lost)
    visit(tmp_path, again, furnished=False)
