"""The policy in force follows its files, however they are edited; real files, real inotify."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.reload import LONGEST
from policy_engine import Allowed, Policy, PolicyError, QubeFacts, Request, World, decide
from tests.broker.files_rig import PATIENCE, Place, follow, text, wait_until

ROOT = Path(__file__).parents[2]
WORLD = World.of([QubeFacts("dom0", None, "AdminVM"), QubeFacts("work", None, "AppVM")])


def one(place: Place) -> None:
    place.write("etc/10.policy", "old")


def in_place(place: Place) -> None:
    with (place.configured / "10.policy").open("r+") as file:
        file.write(text("new"))


def truncated_and_written(place: Place) -> None:
    place.write("etc/10.policy", "new")


def renamed_over(place: Place) -> None:
    place.write("etc/.10.policy.swp", "new").rename(place.configured / "10.policy")


def renamed_over_from_elsewhere(place: Place) -> None:
    place.write("elsewhere", "new").rename(place.configured / "10.policy")


def removed_and_made_again(place: Place) -> None:
    (place.configured / "10.policy").unlink()
    place.write("etc/10.policy", "new")


def moved_aside_and_written(place: Place) -> None:
    (place.configured / "10.policy").rename(place.configured / "10.policy~")
    place.write("etc/10.policy", "new")


def written_through_another_name(place: Place) -> None:
    os.link(place.configured / "10.policy", place.root / "other")
    place.write("other", "new")


def shadowed(place: Place) -> None:
    place.write("run/10.policy", "new")


def swapped_for_a_link(place: Place) -> None:
    place.write("target", "new")
    (place.configured / "link").symlink_to(place.root / "target")
    (place.configured / "link").rename(place.configured / "10.policy")


def directory_moved_over(place: Place) -> None:
    (place.root / "next").mkdir()
    place.write("next/10.policy", "new")
    place.configured.rename(place.root / "last")
    (place.root / "next").rename(place.configured)


def included_directory_appears(place: Place) -> None:
    (place.configured / "include").mkdir()
    place.write("etc/include/a.policy", "new")
    (place.configured / "10.policy").write_text("!include-dir include\n")


EDITS = [
    in_place,
    truncated_and_written,
    renamed_over,
    renamed_over_from_elsewhere,
    removed_and_made_again,
    moved_aside_and_written,
    written_through_another_name,
    shadowed,
    swapped_for_a_link,
    directory_moved_over,
    included_directory_appears,
]


@pytest.mark.parametrize("edit", [pytest.param(edit, id=edit.__name__) for edit in EDITS])
def test_every_edit_comes_into_force_and_so_does_the_one_after_it(
    edit: Callable[[Place], None], tmp_path: Path
) -> None:
    async def story(place: Place) -> None:
        await place.becomes("old")
        edit(place)
        await place.becomes("new")
        # Whatever is there now is watched like what was there before.
        (place.runtime / "10.policy").write_text(text("again"))
        await place.becomes("again")
        (place.runtime / "10.policy").unlink()
        (place.configured / "10.policy").write_text(text("last"))
        await place.becomes("last")

    follow(tmp_path, one, story)


def test_links_and_includes_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    def before(place: Place) -> None:
        (place.root / "a").mkdir()
        (place.root / "b").mkdir()
        (place.root / "step").symlink_to("a")
        (place.configured / "10.policy").write_text(f"!include {place.root}/step/file\n")
        place.write("a/file", "a")
        place.write("b/file", "b")

    async def story(place: Place) -> None:
        await place.becomes("a")
        place.write("a/file", "edited")
        await place.becomes("edited")
        (place.root / "next").symlink_to("b")
        (place.root / "next").rename(place.root / "step")
        await place.becomes("b")
        place.write("a/file", "unseen")
        place.write("b/file", "seen")
        await place.becomes("seen")

    follow(tmp_path, before, story)


def test_what_was_missing_is_waited_for_where_it_would_appear(tmp_path: Path) -> None:
    def before(place: Place) -> None:
        (place.configured / "10.policy").write_text("!include ../later/on/file\n")
        (place.configured / "20.policy").symlink_to(place.root / "dangling/file")

    async def story(place: Place) -> None:
        await place.fails("not-a-file")
        (place.root / "later").mkdir()
        (place.root / "later/on").mkdir()
        place.write("later/on/file", "found")
        await place.becomes("found")
        (place.root / "dangling").mkdir()
        place.write("dangling/file", "linked")
        await place.becomes("found", "linked")
        shutil.rmtree(place.root / "dangling")
        await place.becomes("found")
        shutil.rmtree(place.root / "later")
        await place.fails("not-a-file")

    follow(tmp_path, before, story)


def test_a_policy_directory_that_goes_away_denies_and_is_seen_when_it_returns(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        await place.becomes("old")
        place.configured.rename(place.root / "away")
        await place.fails("io")
        place.write("away/10.policy", "meanwhile")
        (place.root / "away").rename(place.configured)
        await place.becomes("meanwhile")
        place.write("etc/10.policy", "later")
        await place.becomes("later")

    follow(tmp_path, one, story)


def test_the_legacy_directory_is_followed(tmp_path: Path) -> None:
    def before(place: Place) -> None:
        (place.configured / "35-compat.policy").write_text("!compat-4.0\n")

    async def story(place: Place) -> None:
        await place.becomes()
        (place.legacy / "my.Service").write_text("$anyvm dom0 allow\n")
        await place.becomes("my.Service")

    follow(tmp_path, before, story)


@pytest.mark.parametrize(
    ("keep_last_good", "during"),
    [pytest.param(False, "action-unknown", id="deny"), pytest.param(True, ["old"], id="last-good")],
)
def test_a_policy_that_does_not_load(
    keep_last_good: bool, during: list[str] | str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(place: Place) -> None:
        policies = place.reloader.policies
        (place.configured / "20.policy").write_text("x * * * alow\n")
        await wait_until(lambda: policies.error is not None)
        assert str(policies.error).startswith(f"{place.configured}/20.policy:1: column 9: expected allow")
        assert place.services() == during
        (place.configured / "20.policy").unlink()
        await wait_until(lambda: policies.error is None)
        assert place.services() == ["old"]

    follow(tmp_path, one, story, keep_last_good)
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1


def test_a_burst_is_one_reload(tmp_path: Path) -> None:
    swaps: list[list[str] | str] = []

    async def story(place: Place) -> None:
        place.reloader.swapped = lambda: swaps.append(place.services())
        for number in range(200):
            place.write(f"etc/{number:03}.policy", f"s{number}")
        await wait_until(lambda: len(place.services()) == 201)

    follow(tmp_path, one, story)
    assert len(swaps) == 1


def test_edits_that_never_pause_do_not_keep_the_old_policy_in_force(tmp_path: Path) -> None:
    def write_on(path: Path, done: threading.Event) -> None:
        number = 0
        while not done.wait(0.001):
            number += 1
            path.with_name(".next").write_text(text("old", f"s{number}"))
            path.with_name(".next").rename(path)

    async def story(place: Place) -> None:
        done = threading.Event()
        writer = threading.Thread(target=write_on, args=(place.configured / "10.policy", done))
        writer.start()
        try:
            seen = {str(place.services())}
            while len(seen) < 4:
                await wait_until(lambda: str(place.services()) not in seen)
                seen.add(str(place.services()))
        finally:
            done.set()
            writer.join()
        place.write("etc/10.policy", "last")
        await place.becomes("last")

    assert LONGEST < 1
    follow(tmp_path, one, story)


def test_what_does_not_count_reloads_nothing(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        policy = place.reloader.policies.now
        for name in ("etc/README", "etc/.10.policy.swp", "etc/10.policy~", "etc/4913"):
            place.write(name, "junk")
            (place.root / name).unlink()
        (place.configured / "10.policy").touch()
        (place.root / "unrelated").write_bytes(b"")
        place.write("etc/20.policy", "second")
        await place.becomes("old", "second")
        (place.configured / "20.policy").unlink()
        await place.becomes("old")
        # The same content is the same policy, and what it has learned is kept.
        kept = place.reloader.policies.now
        assert kept is not policy
        place.write("etc/10.policy", "old")
        place.reloader.reload()
        await asyncio.sleep(0.2)
        assert place.reloader.policies.now is kept

    follow(tmp_path, one, story)


def test_a_file_name_that_is_not_utf8_hides_nothing(tmp_path: Path) -> None:
    async def story(place: Place) -> None:
        for number in range(50):
            Path(os.fsdecode(os.fsencode(place.configured) + b"/\xff%d" % number)).touch()
        place.write("etc/10.policy", "new")
        await place.becomes("new")

    follow(tmp_path, one, story)


def test_more_events_than_the_kernel_keeps_lose_no_change(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"fs.inotify.max_queued_events is {limit}: too many to overflow in a test")

    async def story(place: Place) -> None:
        # The loop stands still meanwhile, so nobody reads the events; the one that counts is lost.
        junk = place.configured / "junk", place.configured / "knuj"
        junk[0].touch()
        for number in range(limit // 2 + 10):
            junk[number % 2].rename(junk[1 - number % 2])
        place.write("etc/10.policy", "new")
        await place.becomes("new")

    follow(tmp_path, one, story)


def test_decisions_during_edits_are_those_of_the_old_or_the_new_policy(tmp_path: Path) -> None:
    """Two rules that are always edited together: a decision on both sees both old or both new."""

    def ask(policy: Policy | PolicyError, service: str) -> bool:
        assert isinstance(policy, Policy)
        return isinstance(decide(policy, Request(service, "+", "work", "dom0"), WORLD), Allowed)

    def before(place: Place) -> None:
        place.write("etc/10.policy", "s0", "t0")

    async def story(place: Place) -> None:
        path = place.configured / "10.policy"
        for number in range(1, 30):
            path.with_name(".next").write_text(text(f"s{number}", f"t{number}"))
            path.with_name(".next").rename(path)
            deadline = time.monotonic() + PATIENCE
            while True:
                policy = place.reloader.policies.now
                answers = [ask(policy, f"{kind}{n}") for n in (number - 1, number) for kind in "st"]
                assert answers in ([True, True, False, False], [False, False, True, True])
                if answers[3]:
                    break
                assert time.monotonic() < deadline
                await asyncio.sleep(0.001)

    follow(tmp_path, before, story)


@pytest.mark.parametrize("watches", [pytest.param(0, id="none"), pytest.param(4, id="some")])
def test_where_the_kernel_allows_no_more_watches_the_policy_is_read_every_second(
    watches: int, tmp_path: Path
) -> None:
    limit = f"echo {watches} > /proc/sys/user/max_inotify_watches"
    inside = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*inside, limit], capture_output=True).returncode:
        pytest.skip("no user namespace with a limit of inotify watches of its own")
    policy = tmp_path / "10.policy"
    policy.write_text(text("old"))
    follower = [sys.executable, "-m", "tests.broker.blind", str(tmp_path)]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [*inside, f'{limit}; exec "$@"', "sh", *follower], stdout=subprocess.PIPE, stderr=log, cwd=ROOT
        ) as process,
    ):
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline()) == {"state": ["old"], "unwatched": True}
            # Nothing tells here that a file is half written.
            policy.with_suffix(".next").write_text(text("new"))
            policy.with_suffix(".next").rename(policy)
            assert json.loads(process.stdout.readline()) == {"state": ["new"], "unwatched": True}
            policy.with_suffix(".next").write_text("x * * * alow\n")
            policy.with_suffix(".next").rename(tmp_path / "20.policy")
            assert json.loads(process.stdout.readline()) == {"state": "action-unknown", "unwatched": True}
            (tmp_path / "20.policy").unlink()
            assert json.loads(process.stdout.readline()) == {"state": ["new"], "unwatched": True}
        finally:
            process.terminate()
    told = (tmp_path / "log").read_text()
    assert told.count("cannot be watched") == 1
    assert "fs.inotify.max_user_watches" in told
