"""Some steps, of the thousands that ``tools/consents`` makes; and that it finds what it is to find."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from broker.asking import Asking
from broker.consent import Consent, Consents, Wish
from policy_engine import AnyRule, Policy
from tools.consenting.walk import walk

ROOT = Path(__file__).parents[2]


def test_every_call_runs_on_a_yes_of_its_own() -> None:
    done = subprocess.run(
        [ROOT / "tools/consents", "--steps", "1500", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["steps"] == 1_500
    for what in ("asked", "asked first", "let through", "edits", "made anew", "ran", "voided"):
        assert figures[what] > 5, figures


_wish = Asking.wish
_use = Consents.use


def forgets(**blank: object) -> Callable[..., Wish]:
    def wish(*call: object) -> Wish:
        return _wish(*call)._replace(**blank)  # type: ignore[arg-type]

    return wish


def used_again(consents: Consents, wish: Wish, policy: Policy, rule: AnyRule) -> bool:
    kept = dict(consents._kept.get(wish.caller, {}))
    used = _use(consents, wish, policy, rule)
    if used:
        consents._kept[wish.caller].update(kept)
    return used


def of_any_policy(consents: Consents, wish: Wish, policy: Policy, rule: AnyRule) -> bool:
    found: list[Consent] = [one for one in consents._kept.get(wish.caller, {}).values() if one.wish == wish]
    return bool(found) and _use(consents, wish, found[-1].policy, found[-1].rule)


def always(*about: object) -> bool:
    return True


@pytest.mark.parametrize(
    ("place", "flaw"),
    [
        pytest.param("broker.asking.Asking.wish", forgets(target=""), id="any-target"),
        pytest.param("broker.asking.Asking.wish", forgets(touched=()), id="any-value"),
        pytest.param("broker.asking.Asking.wish", forgets(argument=""), id="any-argument"),
        pytest.param("broker.consent.Consents.use", used_again, id="more-than-once"),
        pytest.param("broker.consent.Consents.use", of_any_policy, id="under-any-policy"),
        pytest.param("broker.consent.Consents.covers", always, id="remembered-for-nothing"),
        pytest.param("broker.deciding.pending.Pending.stands", always, id="no-second-look"),
        pytest.param("broker.consent.LIFETIME", 600.0, id="for-too-long"),
    ],
)
def test_a_flaw_is_found(tmp_path: Path, place: str, flaw: object) -> None:
    logging.disable()
    try:
        _finds(tmp_path, place, flaw)
    finally:
        logging.disable(logging.NOTSET)


def _finds(tmp_path: Path, place: str, flaw: object) -> None:
    with patch(place, flaw):
        for seed in range(1, 6):
            folder = tmp_path / str(seed)
            folder.mkdir()
            if asyncio.run(walk(folder, seed, 1_500)).finding is not None:
                return
    pytest.fail("nothing was found")
