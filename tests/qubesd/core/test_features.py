"""Features that are more than a text on a qube."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.qubesd.house import House, visit

SET = "admin.vm.feature.Set"


@pytest.mark.parametrize("value", [pytest.param("1", id="true"), pytest.param("", id="false")])
def test_older_word_for_maxmem_goes_by_the_rules_of_maxmem(value: str, tmp_path: Path) -> None:
    """The limit of a running qube stays, by whatever name a caller asks for another one."""

    async def guest(house: House) -> None:
        await house.do("admin.vm.property.Set", "work", "maxmem", "800")
        await house.do("admin.vm.Start", "work")
        before = house.core.system
        house.told.clear()
        assert await house.call(SET, "work", "service.meminfo-writer", value) == "QubesVMNotHaltedError"
        assert house.core.system is before
        assert house.told == []

    visit(tmp_path, guest)
