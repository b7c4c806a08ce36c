from __future__ import annotations

from pathlib import Path

import pytest

from qubesd.core.time_zone import time_zone


@pytest.mark.parametrize(
    ("named", "linked", "zone"),
    [
        pytest.param("Europe/Berlin\n", None, "Europe/Berlin", id="named"),
        pytest.param(None, "/usr/share/zoneinfo/America/Lima", "America/Lima", id="linked"),
        pytest.param(None, "/usr/share/zoneinfo/a/b/c/d", "a/b/c/d", id="linked-far-down"),
        pytest.param(None, "own-zone", None, id="linked-beside"),
        pytest.param(None, "../usr/share/zoneinfo/Etc/GMT+1", "Etc/GMT+1", id="linked-from-here"),
        pytest.param("UTC", "/usr/share/zoneinfo/Asia/Tokyo", "UTC", id="the-name-counts"),
        pytest.param("", "/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo", id="empty"),
        pytest.param("../../etc/passwd", None, None, id="a-path"),
        pytest.param("/Europe/Berlin", None, None, id="from-the-root"),
        pytest.param("Europe/Berlin\nUTC", None, None, id="two-lines"),
        pytest.param("a" * 1000, "/usr/share/zoneinfo/UTC", "UTC", id="too-long"),
        pytest.param(None, "/var/lib/own-zone", None, id="linked-elsewhere"),
        pytest.param(None, None, None, id="nothing"),
    ],
)  # fmt: skip
def test_zone(tmp_path: Path, named: str | None, linked: str | None, zone: str | None) -> None:
    if named is not None:
        (tmp_path / "timezone").write_text(named)
    if linked is not None:
        (tmp_path / "localtime").symlink_to(linked)
    assert time_zone(tmp_path) == zone
