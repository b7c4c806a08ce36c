"""Clone tokens: one use, one caller, ten minutes; and what a clone by one leaves when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from qubesd.core.tokens import LIFE, MOST, Copied, Tokens
from qubesd.errors import NoSuchToken
from tests.qubesd.house import House, visit

COPIED = Copied("0" * 32, "work", "private")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_good_once() -> None:
    tokens = Tokens(Clock())
    token = tokens.give("alice", COPIED)
    assert len(token) == 32
    assert token.isalnum()
    assert tokens.look("alice", token) == COPIED
    assert tokens.take("alice", token) == COPIED
    with pytest.raises(NoSuchToken):
        tokens.take("alice", token)


def test_a_token_of_one_caller_is_nothing_to_another() -> None:
    tokens = Tokens(Clock())
    token = tokens.give("alice", COPIED)
    with pytest.raises(NoSuchToken):
        tokens.take("bob", token)
    assert tokens.take("alice", token) == COPIED


def test_a_token_ends_by_itself() -> None:
    clock = Clock()
    tokens = Tokens(clock)
    token = tokens.give("alice", COPIED)
    clock.now = LIFE - 1
    assert tokens.look("alice", token) == COPIED
    clock.now = LIFE
    assert tokens.look("alice", token) is None
    with pytest.raises(NoSuchToken):
        tokens.take("alice", token)


def test_a_caller_has_so_many_and_pushes_out_none_of_anothers() -> None:
    tokens = Tokens(Clock())
    others = tokens.give("bob", COPIED)
    mine = [tokens.give("alice", COPIED) for _ in range(MOST + 1)]
    assert len(set(mine)) == MOST + 1
    assert tokens.look("alice", mine[0]) is None
    assert all(tokens.look("alice", token) for token in mine[1:])
    assert tokens.look("bob", others) == COPIED


FROM, TO = "admin.vm.volume.CloneFrom", "admin.vm.volume.CloneTo"


def test_over_the_calls_a_token_is_bound_used_up_and_names_this_very_qube(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        async def token(caller: str = "dom0") -> str:
            return await house.call(FROM, "work", "private", caller=caller)

        mine = await token("web-dvm")
        assert await house.call(TO, "sys-net", "private", mine, caller="work") != ""
        assert await house.call(TO, "sys-net", "private", mine, caller="web-dvm") == ""
        assert await house.call(TO, "sys-net", "private", mine, caller="web-dvm") != ""
        # A use that fails is a use: the target runs, and keeps no state to be put beside what it writes.
        failing = await token()
        await house.do("admin.vm.volume.Set.revisions_to_keep", "sys-net", "private", "0")
        await house.do("admin.vm.Start", "sys-net")
        assert await house.call(TO, "sys-net", "private", failing) != ""
        await house.do("admin.vm.Kill", "sys-net")
        assert await house.call(TO, "sys-net", "private", failing) != ""
        # A token of a qube that was removed says nothing of one made under its name.
        old = await token()
        await house.do("admin.vm.Remove", "work")
        await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", "name=work label=red")
        assert await house.call(TO, "sys-net", "private", old) != ""
        fresh = await token()
        assert await house.call(TO, "sys-net", "private", fresh) == ""

    visit(tmp_path, guest)
