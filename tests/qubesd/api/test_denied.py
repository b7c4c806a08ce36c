"""Interface codes are added and taken away one by one, and only a change is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.qubesd.house import House, visit

CALL = "admin.vm.device.denied"


def test_only_what_changes_is_told(tmp_path: Path) -> None:
    async def deny(house: House) -> None:
        await house.do(f"{CALL}.Add", "work", "", "u030101b******")
        assert house.names() == [
            "work property-pre-set:devices_denied",
            "work property-set:devices_denied",
        ]
        await house.do(f"{CALL}.Add", "work", "", "b******")
        await house.do(f"{CALL}.Remove", "work", "", "m******")
        await house.do(f"{CALL}.Remove", "work")
        assert house.names() == []
        assert await house.call(f"{CALL}.List", "work") == "b******\nu030101"
        await house.do(f"{CALL}.Remove", "work", "", "all")
        assert await house.call(f"{CALL}.List", "work") == ""

    visit(tmp_path, deny)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        pytest.param("b*****", "QubesValueError", id="too-short"),
        pytest.param("b******b******", "ProtocolError", id="twice"),
        pytest.param("?******", "QubesPropertyValueError", id="no-class"),
        pytest.param("ALL", "QubesValueError", id="all-in-capitals"),
    ],
)
@pytest.mark.parametrize("verb", ["Add", "Remove"])
def test_what_is_no_code_changes_nothing(tmp_path: Path, verb: str, payload: str, error: str) -> None:
    async def deny(house: House) -> None:
        await house.do(f"{CALL}.Add", "work", "", "b******")
        assert await house.call(f"{CALL}.{verb}", "work", "", payload) == error
        assert await house.call(f"{CALL}.List", "work") == "b******"

    visit(tmp_path, deny)


def test_the_codes_of_a_qube_are_bounded(tmp_path: Path) -> None:
    async def deny(house: House) -> None:
        await house.do(f"{CALL}.Add", "work", "", "".join(f"u{code:06x}" for code in range(9_000)))
        assert await house.call(f"{CALL}.Add", "work", "", "b******") == "QubesValueError"
        await house.do(f"{CALL}.Add", "work", "", "u000000")

    visit(tmp_path, deny)
