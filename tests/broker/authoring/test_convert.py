"""``qrexec-legacy-convert``: what it writes and asks, that it can be broken off, and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import pytest

from broker.authoring.convert import main
from broker.editing.edits import PolicyEdits, places_of
from policy_engine import Policy, Request, World, decide, load
from qubesd.config import rooted
from tests.broker.editing.test_killed import killed_at
from tests.broker.rig import ROOT
from tests.policy_engine.test_sameness import told

SYSTEM = {
    "domains": {
        "dom0": {"type": "AdminVM", "tags": []},
        "work": {"type": "AppVM", "tags": [], "default_dispvm": "dvm"},
        "vault": {"type": "AppVM", "tags": []},
        "dvm": {"type": "AppVM", "tags": [], "template_for_dispvms": True},
    }
}
TODAY = {
    "35-compat.policy": "!compat-4.0\n",
    "30-user.policy": "qubes.Filecopy * vault @anyvm deny notify=no\n",
    "50-config-filecopy.policy": "# theirs\nqubes.Filecopy * vault work ask\n",
    "90-default.policy": "qubes.Filecopy * @anyvm @anyvm ask\nmy.S * @anyvm @anyvm allow\n",
}
OLD = {
    "qubes.Filecopy": "work vault allow,notify=yes\nwork $anyvm ask,autostart=no\n$anyvm $anyvm deny\n",
    "qubes.OpenURL": "$anyvm $dispvm allow,target=$dispvm:dvm\n",
    "my.S+x": "work vault allow,user=root\n",
}
REQUESTS = [
    Request.of(called, source, target)
    for called in ("qubes.Filecopy", "qubes.OpenURL", "my.S", "my.S+x")
    for source in ("work", "vault", "dom0")
    for target in ("work", "vault", "dom0", "@default", "@dispvm", "@dispvm:dvm")
]


@pytest.fixture(name="root")
def fixture_root(tmp_path: Path) -> Path:
    return laid(tmp_path / "root")


def laid(root: Path) -> Path:
    """A root without a policy."""
    for folder in ("etc/qubes/policy.d/include", "run/qubes/policy.d", "etc/qubes-rpc/policy"):
        (root / folder).mkdir(parents=True)
    (root / "system").write_text(json.dumps(SYSTEM))
    return root


def write(root: Path, today: Mapping[str, str], old: Mapping[str, str]) -> None:
    for name, text in today.items():
        (root / "etc/qubes/policy.d" / name).write_text(text)
    for name, text in old.items():
        (root / "etc/qubes-rpc/policy" / name).write_text(text)


def run(root: Path, *words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "broker.authoring.convert", "--root", str(root), *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=answer,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def convert(root: Path, answer: str = "") -> list[str]:
    """What is said, paths below the root."""
    done = run(root, "--system-info", "system", answer=answer)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.replace(f"{root}/", "").splitlines()


def tree(root: Path) -> dict[str, str]:
    """All files but those of the history, by name."""
    folders = (root / "etc/qubes/policy.d", root / "etc/qubes-rpc/policy")
    return {path.name: path.read_text() for folder in folders for path in folder.iterdir() if path.is_file()}


def policy_of(root: Path) -> Policy:
    config = rooted(root)
    return load(None, [str(config.policy_runtime), str(config.policy_dir)], str(config.policy_legacy))


def decisions(root: Path) -> list[object]:
    policy, world = policy_of(root), World.from_system_info(SYSTEM)
    return [told(decide(policy, request, world)) for request in REQUESTS]


def test_rules_move_and_nothing_is_lost(root: Path) -> None:
    write(root, TODAY, OLD)
    before = decisions(root)
    said = convert(root)
    assert decisions(root) == before
    found = tree(root)
    assert [name for name in sorted(found) if name not in TODAY] == [
        "30-user.policy.bak",
        "50-config-filecopy.policy.bak",
        "50-config-openurl.policy",
        "my.S+x.rpmsave",
        "qubes.Filecopy.rpmsave",
        "qubes.OpenURL.rpmsave",
    ]
    assert {name.removesuffix(".rpmsave"): found[name] for name in found if name.endswith(".rpmsave")} == OLD
    assert {name: found[f"{name}.bak"] for name in TODAY if f"{name}.bak" in found} == {
        name: TODAY[name] for name in ("30-user.policy", "50-config-filecopy.policy")
    }
    assert found["50-config-filecopy.policy"].endswith(f"\n\n{TODAY['50-config-filecopy.policy']}")
    assert "qubes.Filecopy * work vault allow notify=yes\n" in found["50-config-filecopy.policy"]
    assert "my.S +x work vault allow user=root\n" in found["30-user.policy"]
    assert "etc/qubes-rpc/policy/my.S+x: renamed to my.S+x.rpmsave" in said
    assert convert(root) == ["etc/qubes-rpc/policy: nothing to convert"]
    assert tree(root) == found


def test_it_is_one_change_of_the_history(root: Path) -> None:
    write(root, TODAY, OLD)
    convert(root)
    *_, last = PolicyEdits(places_of(rooted(root))).history()
    assert (last.author.qube, last.why) == ("dom0", "qrexec-legacy-convert")
    assert len(last.files) == 3


def test_a_dry_run_shows_what_would_be_written_and_writes_nothing(root: Path) -> None:
    write(root, TODAY, OLD)
    done = run(root, "--dry-run", "--system-info", "system")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "+my.S +x work vault allow user=root" in lines
    assert f"{root}/etc/qubes-rpc/policy/my.S+x would be renamed to my.S+x.rpmsave" in lines
    assert tree(root) == TODAY | OLD
    assert not (root / "var").exists()


def test_copies_get_names_that_no_file_has(root: Path) -> None:
    kept = {"30-user.policy.bak": "of last year\n"}
    write(root, TODAY | kept, {"my.S": "work vault allow,user=root\n"})
    convert(root)
    found = tree(root)
    assert found["30-user.policy.bak"] == "of last year\n"
    assert found["30-user.policy.bak.bak"] == TODAY["30-user.policy"]


UNLIKE = {
    "30-user.policy": "my.S * work vault deny\n",
    "33-more.policy": "my.S * work dvm deny\n",
    "35-compat.policy": "!include include/old\n",
    "include/old": "!compat-4.0\n",
    "40-more.policy": "my.S * vault work deny\n",
}
"""Of which no order is the same without the old directory."""


@pytest.mark.parametrize(
    "answer", [pytest.param("\n", id="default"), pytest.param("", id="nobody"), "y\n", "x\n"]
)
def test_the_old_state_is_kept_unless_that_is_denied(root: Path, answer: str) -> None:
    write(root, UNLIKE, {"my.S": "$anyvm $anyvm allow,user=root\n"})
    before = tree(root)
    done = run(root, "--system-info", "system", answer=answer)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert any(line.startswith('  "work" -> "dvm" [label="my.S') for line in lines)
    assert lines[-1].endswith("Restore the old state? [Y/n] the old state is kept, nothing was changed")
    assert tree(root) == before


def test_with_a_no_it_goes_on(root: Path) -> None:
    write(root, UNLIKE, {"my.S": "$anyvm $anyvm allow,user=root\n"})
    convert(root, "n\n")
    assert "my.S.rpmsave" in tree(root)


@pytest.mark.parametrize(
    ("today", "words", "status", "hint"),
    [
        pytest.param(
            {"1.policy": "oops\n"}, ["--system-info", "system"], 1, "nothing was changed", id="broken"
        ),
        pytest.param({}, [], 2, "is qubesd running, and is this dom0?", id="no-qubesd"),
        pytest.param({}, ["--system-info", "gone"], 2, "gone: No such file", id="no-system"),
        pytest.param({}, ["--config", "/gone"], 2, "/gone: no such file", id="no-configuration"),
    ],
)
def test_what_keeps_it_from_converting_is_said(
    root: Path, today: dict[str, str], words: list[str], status: int, hint: str
) -> None:
    write(root, TODAY | today, OLD)
    before = tree(root)
    done = run(root, *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert hint in done.stderr
    assert tree(root) == before


def test_a_place_that_is_taken_is_left_alone(root: Path) -> None:
    write(root, TODAY, OLD)
    (root / "etc/qubes/policy.d/50-config-openurl.policy").mkdir()
    done = run(root, "--system-info", "system")
    assert done.returncode == 2
    assert "my.S+x" in tree(root)


def test_a_file_that_cannot_be_said_in_another_way_stays(root: Path) -> None:
    write(root, TODAY, {"+x": "work vault allow\n"})
    assert convert(root) == [
        "etc/qubes-rpc/policy/+x: stays, rules of today cannot be for a service without a name",
        "etc/qubes-rpc/policy: nothing to convert",
    ]


def test_nothing_to_convert_without_the_old_directory(root: Path) -> None:
    (root / "etc/qubes-rpc/policy").rmdir()
    assert convert(root) == ["etc/qubes-rpc/policy: nothing to convert"]


_CHANGES = ("os.rename", "os.remove", "os.link", "os.mkdir", "os.chmod")


def converted(root: Path) -> None:
    """In this process."""
    with pytest.raises(SystemExit, match="0"):
        main(["--root", str(root), "--system-info", str(root / "system")])


def killed(root: Path, step: int) -> bool:
    """Convert in a process that is killed before its change of this number; whether there was such a one."""
    return killed_at(step, PolicyEdits(places_of(rooted(root))), lambda _: converted(root), _CHANGES)


def result(root: Path) -> dict[str, str]:
    return {name: text.replace(f"{root}/", "") for name, text in tree(root).items()}


def test_killed_at_any_step_it_decides_as_before_and_is_finished_by_doing_it_again(tmp_path: Path) -> None:
    whole = laid(tmp_path / "whole")
    write(whole, TODAY, OLD)
    before = decisions(whole)
    converted(whole)
    for step in count():
        root = laid(tmp_path / str(step))
        write(root, TODAY, OLD)
        if not killed(root, step):
            break
        assert decisions(root) == before
        converted(root)
        assert result(root) == result(whole)
    assert step > 40
