"""Switching between the stock policy daemon and ours in a scratch root: whole, back again, and cut short
anywhere."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tools.installation.switch import (
    FALLBACK,
    MODES,
    STOCK_SOCKET,
    STOCK_UNIT,
    TRIAL_UNIT,
    SwitchError,
    mode,
    report,
    switch,
)

ROOT = Path(__file__).parents[2]
STOCK_PROGRAM = "#!/bin/sh\n# the stock program\n"
PROGRAM_FILES = (
    "bin/qrexec-policy-daemon",
    "bin/qrexec-policy-exec",
    f"systemd/{STOCK_SOCKET}",
    f"systemd/{STOCK_UNIT}",
    f"systemd/{TRIAL_UNIT}",
)

CUT = 99
"""The status of a switch that was cut short."""

CUTTER = """
import os, sys
steps = int(sys.argv[1])
def step(event, arguments):
    global steps
    if event in {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}:
        if steps == 0:
            os._exit(99)
        steps -= 1
sys.path.insert(0, sys.argv[2])
from tools.installation.%s import main
sys.argv[1:] = sys.argv[3:]
sys.addaudithook(step)
main()
"""
"""Dies, as by a power cut, before the step on the file system that has this number."""


def cut_short(module: str, steps: int, *words: str) -> bool:
    """Run a main that dies before a step; whether it came to that step."""
    command = [sys.executable, "-c", CUTTER % module, str(steps), str(ROOT), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, CUT), done.stderr
    return done.returncode == CUT


def stock_root(root: Path) -> Path:
    """A dom0's stock policy daemon and its program, enabled."""
    unit = root / "usr/lib/systemd/system" / STOCK_UNIT
    for path, text in ((root / "usr/bin" / FALLBACK.name, STOCK_PROGRAM), (unit, "[Service]\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (root / "usr/bin" / FALLBACK.name).chmod(0o755)
    wants = root / "etc/systemd/system/multi-user.target.wants" / STOCK_UNIT
    wants.parent.mkdir(parents=True)
    wants.symlink_to(Path("/usr/lib/systemd/system") / STOCK_UNIT)
    return root


def with_program(root: Path) -> Path:
    for name in PROGRAM_FILES:
        path = root / "usr/lib/qubes-admin-core" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return with_program(stock_root(tmp_path))


def snapshot(root: Path) -> dict[str, str]:
    """Every file's content and mode and every link's end."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(root))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(root))] = f"{path.stat().st_mode:o} {path.read_bytes()!r}"
    return found


def fallback_of(root: Path) -> str:
    """Which program the C daemon would run; there is one at every moment."""
    path = root / FALLBACK.relative_to("/")
    if path.is_symlink():
        assert path.readlink() == Path("/usr/lib/qubes-admin-core/bin") / FALLBACK.name
        return "ours"
    assert path.read_text() == STOCK_PROGRAM
    return "stock"


def test_instead_hides_the_stock_unit_and_keeps_the_stock_program(root: Path) -> None:
    before = snapshot(root)
    switch(root, "instead", None)
    after = snapshot(root)
    ours = "-> /usr/lib/qubes-admin-core"
    for unit in (STOCK_UNIT, STOCK_SOCKET, f"sockets.target.wants/{STOCK_SOCKET}"):
        assert after.pop(f"etc/systemd/system/{unit}") == f"{ours}/systemd/{Path(unit).name}"
    kept = after.pop("usr/bin/qrexec-policy-exec.stock")
    assert kept == before["usr/bin/qrexec-policy-exec"]
    assert after == {**before, "usr/bin/qrexec-policy-exec": f"{ours}/bin/qrexec-policy-exec"}


def test_beside_touches_nothing_stock(root: Path) -> None:
    before = snapshot(root)
    switch(root, "beside", None)
    after = snapshot(root)
    ours = f"-> /usr/lib/qubes-admin-core/systemd/{TRIAL_UNIT}"
    assert after.pop(f"etc/systemd/system/{TRIAL_UNIT}") == ours
    assert after.pop(f"etc/systemd/system/multi-user.target.wants/{TRIAL_UNIT}") == ours
    assert after == before


@pytest.mark.parametrize("first", MODES)
@pytest.mark.parametrize("second", MODES)
def test_any_mode_leads_to_any_other_and_back_to_stock(root: Path, first: str, second: str) -> None:
    stock = snapshot(root)
    switch(root, second, None)
    want = snapshot(root)
    switch(root, first, None)
    switch(root, second, None)
    switch(root, second, None)
    assert (mode(root), snapshot(root)) == (second, want)
    switch(root, "stock", None)
    assert snapshot(root) == stock


@pytest.mark.parametrize("then", MODES)
@pytest.mark.parametrize(("first", "second"), [(a, b) for a in MODES for b in MODES if a != b])
def test_a_switch_cut_short_anywhere_loses_nothing(
    tmp_path: Path, first: str, second: str, then: str
) -> None:
    end = with_program(stock_root(tmp_path / "end"))
    switch(end, then, None)
    steps = 0
    while True:
        root = with_program(stock_root(tmp_path / f"cut-{steps}"))
        switch(root, first, None)
        cut = cut_short("switch", steps, "--root", str(root), second)
        fallback_of(root)
        assert (root / "usr/lib/systemd/system" / STOCK_UNIT).read_text() == "[Service]\n"
        # Made again, taken back or gone on from, it ends as if it had not been cut short.
        switch(root, then, None)
        assert snapshot(root) == snapshot(end), f"cut before step {steps}"
        if not cut:
            break
        steps += 1
    assert steps >= 2


def test_where_there_is_no_stock_daemon_ours_starts_at_boot_and_leaves_nothing(tmp_path: Path) -> None:
    root = with_program(tmp_path)
    before = snapshot(root)
    switch(root, "instead", None)
    assert (root / "etc/systemd/system/multi-user.target.wants" / STOCK_UNIT).is_symlink()
    switch(root, "stock", None)
    assert snapshot(root) == before


def test_a_stock_program_that_an_upgrade_brings_is_the_one_that_comes_back(root: Path) -> None:
    switch(root, "instead", None)
    path = root / FALLBACK.relative_to("/")
    path.unlink()
    path.write_text("newer")
    assert any("an upgrade replaced it" in line for line in report(root))
    switch(root, "instead", None)
    assert list(report(root)) == ["instead"]
    switch(root, "stock", None)
    assert path.read_text() == "newer"
    assert not path.with_name(f"{path.name}.stock").exists()


@pytest.mark.parametrize(
    ("wanted", "unit"), [("instead", STOCK_UNIT), ("instead", STOCK_SOCKET), ("beside", TRIAL_UNIT)]
)
def test_a_unit_of_somebody_else_is_left_alone(root: Path, wanted: str, unit: str) -> None:
    (root / "etc/systemd/system" / unit).write_text("an administrator's own")
    before = snapshot(root)
    with pytest.raises(SwitchError, match=f"{unit}: this unit is not ours"):
        switch(root, wanted, None)
    assert snapshot(root) == before


@pytest.mark.parametrize("wanted", ["beside", "instead"])
@pytest.mark.parametrize("missing", ["bin/qrexec-policy-daemon", "bin/qrexec-policy-exec"])
def test_without_our_program_nothing_is_switched(root: Path, wanted: str, missing: str) -> None:
    (root / "usr/lib/qubes-admin-core" / missing).unlink()
    before = snapshot(root)
    with pytest.raises(SwitchError, match=f"{missing}: not there"):
        switch(root, wanted, None)
    assert snapshot(root) == before


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """A daemon that reads one question and gives this answer; yields what it was asked."""
    asked: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                question = b""
                while not question.endswith(b"\n\n") and (more := connection.recv(4096)):
                    question += more
                asked.append(question)
                connection.sendall(answer)

    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield asked
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            serving.join()


@pytest.fixture
def short_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose path leaves room for the sockets' in an address, which ends at 107 bytes."""
    return with_program(stock_root(tmp_path_factory.mktemp("r")))


def test_systemd_is_told_and_the_daemon_asked(short_root: Path) -> None:
    told: list[tuple[str, ...]] = []
    with answering(short_root / "run/qubes/policy.sock", b"result=deny") as asked:
        switch(short_root, "instead", lambda *words: told.append(words))
    assert told == [("daemon-reload",), ("stop", STOCK_UNIT), ("start", STOCK_UNIT)]
    assert len(asked) == 1
    assert b"just_evaluate=yes\n" in asked[0]


@pytest.mark.parametrize("wanted", ["stock", "beside"])
def test_leaving_instead_closes_the_sockets_before_their_unit_goes(root: Path, wanted: str) -> None:
    switch(root, "instead", None)
    unit = root / "etc/systemd/system" / STOCK_SOCKET
    told: list[tuple[tuple[str, ...], bool]] = []

    def systemctl(*words: str) -> None:
        told.append((words, unit.is_symlink()))
        if words == ("restart", TRIAL_UNIT):
            raise subprocess.CalledProcessError(1, "systemctl")

    if wanted == "beside":
        with pytest.raises(SwitchError, match="back in mode 'instead'"):
            switch(root, wanted, systemctl)
    else:
        switch(root, wanted, systemctl)
    assert told[:4] == [
        (("stop", STOCK_SOCKET), True),
        (("daemon-reload",), False),
        (("stop", STOCK_UNIT), False),
        (("start", STOCK_UNIT), False),
    ]


def test_sockets_that_cannot_be_closed_leave_everything_as_it_is(root: Path) -> None:
    switch(root, "instead", None)
    before = snapshot(root)

    def systemctl(*words: str) -> None:
        raise subprocess.CalledProcessError(1, "systemctl")

    with pytest.raises(SwitchError, match="back in mode 'instead'"):
        switch(root, "stock", systemctl)
    assert snapshot(root) == before


def test_leaving_beside_stops_the_daemon_on_trial(short_root: Path) -> None:
    switch(short_root, "beside", None)
    told: list[tuple[str, ...]] = []
    switch(short_root, "stock", lambda *words: told.append(words))
    assert told == [("daemon-reload",), ("stop", TRIAL_UNIT)]


@pytest.mark.parametrize("answer", [b"", b"result=perhaps", b"\0" * 5000])
def test_a_daemon_that_does_not_decide_gives_way_to_the_stock_one(short_root: Path, answer: bytes) -> None:
    before = snapshot(short_root)
    told: list[tuple[str, ...]] = []
    with (
        answering(short_root / "run/qubes/policy.sock", answer),
        pytest.raises(SwitchError, match=r"is not a decision: .*; back in mode 'stock'"),
    ):
        switch(short_root, "instead", lambda *words: told.append(words))
    assert snapshot(short_root) == before
    # The sockets are taken away while the unit that made them is still there to tell how.
    back = [("stop", STOCK_SOCKET), ("daemon-reload",), ("stop", STOCK_UNIT), ("start", STOCK_UNIT)]
    assert told[-4:] == back


def test_a_daemon_that_does_not_start_gives_way_to_the_stock_one(short_root: Path) -> None:
    before = snapshot(short_root)

    def systemctl(*words: str) -> None:
        if words == ("start", STOCK_UNIT) and mode(short_root) == "instead":
            raise subprocess.CalledProcessError(1, "systemctl")

    with pytest.raises(SwitchError, match="back in mode 'stock'"):
        switch(short_root, "instead", systemctl)
    assert snapshot(short_root) == before
