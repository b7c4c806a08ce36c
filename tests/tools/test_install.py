"""Units, wheel, Debian packages and the scripts, made and used in scratch roots.

The commands are those that people type; only ``systemctl`` is never called, for there is no machine of their
own to try it on.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.editing.table import METHODS as POLICY_CALLS
from broker.prompts.main import SOCKET
from broker.root import SHIPPED
from qubesd.api.imports import PROGRAMS as IMPORTS
from qubesd.api.table import METHODS, MISC
from tests.tools.test_switch import cut_short, fallback_of, snapshot, stock_root
from tools.installation import debian, wheel
from tools.installation.switch import STOCK_UNIT, TRIAL_UNIT, SwitchError, mode, switch
from tools.installation.tree import install, remove

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "tools/installation/systemd"
PROGRAMS = ("usr/lib/qubes-admin-core/bin/qrexec-policy-daemon", "usr/bin/qubesd", "bin/kill")
THRESHOLD = 50
"""Of systemd's exposure level, in tenths."""

LIMIT = 60.0
"""Seconds that a command may take."""


def needs(*programs: str) -> None:
    """Skip, by name, where the machine lacks one."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def unit_root(root: Path, unit: str, text: str) -> Path:
    """A root with this unit, the programs that it names, and what it is ordered by."""
    for program in PROGRAMS:
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).touch(mode=0o755)
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for other in UNITS.iterdir():
        (units / other.name).write_text(other.read_text())
    (units / unit).write_text(text)
    for target in ("basic", "local-fs", "multi-user", "shutdown", "sockets", "sysinit"):
        (units / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    return root


def analyze(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run("systemd-analyze", f"--root={root}", "--no-pager", *words, check=False)


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.iterdir()))
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, unit: str) -> None:
    needs("systemd-analyze")
    root = unit_root(tmp_path, unit, (UNITS / unit).read_text())
    done = analyze(root, "verify", unit)
    # Unknown keys are told on standard error only; the status is 0 all the same.
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_would_find_an_unknown_key(tmp_path: Path) -> None:
    needs("systemd-analyze")
    text = (UNITS / "qubesd.service").read_text().replace("[Service]\n", "[Service]\nProtectSytem=strict\n")
    done = analyze(unit_root(tmp_path, "qubesd.service", text), "verify", "qubesd.service")
    assert "ProtectSytem" in done.stderr


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.service")))
def test_the_unit_is_hardened(tmp_path: Path, unit: str) -> None:
    needs("systemd-analyze")
    root = unit_root(tmp_path, unit, (UNITS / unit).read_text())
    done = analyze(root, "security", "--offline=true", f"--threshold={THRESHOLD}", unit)
    assert done.returncode == 0, done.stdout + done.stderr


def test_systemd_would_find_a_unit_that_is_not_hardened(tmp_path: Path) -> None:
    needs("systemd-analyze")
    root = unit_root(tmp_path, "qubesd.service", "[Service]\nExecStart=/usr/bin/qubesd\n")
    done = analyze(root, "security", "--offline=true", f"--threshold={THRESHOLD}", "qubesd.service")
    assert done.returncode != 0


def test_the_daemon_on_trial_has_the_same_hardening() -> None:
    def hardening(unit: str) -> str:
        text = (UNITS / unit).read_text()
        found = re.search(r"^# It decides, .*(?=^\[Install\])", text, re.MULTILINE | re.DOTALL)
        assert found is not None
        return found[0]

    assert hardening(STOCK_UNIT) == hardening(TRIAL_UNIT)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return wheel.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def packages(built: Path) -> dict[str, Path]:
    """The Debian packages by name."""
    needs("dpkg-deb")
    return {path.name.split("_")[0]: path for path in debian.build(built, built.parent)}


def test_the_wheel_has_every_source_and_the_default_policy(built: Path) -> None:
    want = {
        str(path.relative_to(ROOT))
        for package in ("broker", "policy_engine", "qubesd")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".lark"}
    }
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
    assert {name for name in names if ".data/" not in name and ".dist-info/" not in name} == want
    shipped = {name.partition("/policy.d/")[2] for name in names if "/policy.d/" in name}
    policy = ROOT / "policy.d"
    files = [file for pattern in SHIPPED for file in policy.glob(pattern)]
    assert policy / "include/operator" in files
    assert shipped == {str(path.relative_to(policy)) for path in files}


def test_the_same_sources_make_the_same_bytes(built: Path, packages: dict[str, Path], tmp_path: Path) -> None:
    again = wheel.build(tmp_path)
    assert again.read_bytes() == built.read_bytes()
    for path in debian.build(again, tmp_path):
        assert path.read_bytes() == packages[path.name.split("_")[0]].read_bytes()


SMALL = {
    "broker/__init__.py": "",
    "broker/deciding/daemon.py": "def main(): print('decides')\n",
    "small-1.dist-info/entry_points.txt": "[console_scripts]\n"
    "qrexec-policy-daemon = broker.deciding.daemon:main\n"
    "qrexec-policy-exec = broker.deciding.daemon:main\n",
}


def small_wheel(folder: Path, **files: str) -> Path:
    """A wheel of the same form, quick to install."""
    path = folder / "small-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**SMALL, **files}.items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize("wanted", ["beside", "instead"])
def test_install_and_remove_leave_the_stock_system_as_it_was(tmp_path: Path, wanted: str) -> None:
    root = stock_root(tmp_path / "root")
    stock = snapshot(root)
    small = small_wheel(tmp_path)
    install(small, root, wanted, None)
    after = snapshot(root)
    launcher = root / "usr/lib/qubes-admin-core/bin/qrexec-policy-daemon"
    assert run(sys.executable, "-I", launcher).stdout == "decides\n"
    assert (root / "usr/sbin/qubes-policy-switch").is_symlink()
    install(small, root, wanted, None)
    assert (mode(root), snapshot(root)) == (wanted, after)
    remove(root, None)
    remove(root, None)
    assert snapshot(root) == stock


def test_installing_another_version_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    root = stock_root(tmp_path / "root")
    install(small_wheel(tmp_path), root, "instead", None)
    install(small_wheel(tmp_path, **{"broker/new.py": ""}), root, "instead", None)
    versions = sorted(path.name for path in (root / "usr/lib").iterdir())
    assert len(versions) == 3, versions  # the link, what it leads to, and systemd
    assert (root / "usr/lib/qubes-admin-core/python/broker/new.py").exists()


def test_a_version_that_does_not_run_gives_way_to_the_one_before(tmp_path: Path) -> None:
    root = stock_root(tmp_path / "root")
    install(small_wheel(tmp_path), root, "instead", None)
    before = snapshot(root)
    broken = {"small-1.dist-info/entry_points.txt": "[console_scripts]\nqubesd = broker.daemon:main\n"}
    with pytest.raises(SwitchError, match="qrexec-policy-daemon: not there"):
        install(small_wheel(tmp_path, **broken), root, "instead", None)
    assert (mode(root), fallback_of(root)) == ("instead", "ours")
    install(small_wheel(tmp_path), root, "instead", None)
    assert snapshot(root) == before


def test_dom0_needs_the_tools_and_a_wheel_alone(built: Path, tmp_path: Path) -> None:
    """And the system's own Python, without anything of ours or that we depend on."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    root = tmp_path / "root"
    for words in (("install", "--wheel", built), ("remove",)):
        done = subprocess.run(
            [tmp_path / "tools" / words[0], *words[1:], "--root", root],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert [place for place in root.rglob("*") if place.is_file()] == []


def test_a_wheel_that_leads_out_of_its_directory_is_not_installed(tmp_path: Path) -> None:
    root = stock_root(tmp_path / "root")
    with pytest.raises(ValueError, match="leads out of the directory"):
        install(small_wheel(tmp_path, **{"../../../etc/cron.d/x": ""}), root, "beside", None)
    assert not (root / "etc/cron.d").exists()


@pytest.mark.parametrize("again", [True, False], ids=["then-install", "then-remove"])
@pytest.mark.parametrize("command", ["install", "remove"])
def test_cut_short_anywhere_it_can_be_made_again_and_undone(
    tmp_path: Path, command: str, again: bool
) -> None:
    small = small_wheel(tmp_path)
    words = {"install": ("install", "--instead", "--wheel", str(small)), "remove": ("remove",)}[command]
    stock = snapshot(stock_root(tmp_path / "stock"))
    # Half of the steps each, so that every one of them is cut at.
    steps = int(again)
    while True:
        root = stock_root(tmp_path / f"cut-{steps}")
        if command == "remove":
            install(small, root, "instead", None)
        cut = cut_short("__main__", steps, *words, "--root", str(root))
        # At no moment is there no program to decide with: ours is whole when a link leads to it.
        if fallback_of(root) == "ours":
            assert (root / "usr/lib/qubes-admin-core/bin/qrexec-policy-exec").exists()
        if again:
            install(small, root, "instead", None)
            assert mode(root) == "instead"
        remove(root, None)
        assert snapshot(root) == stock, f"cut before step {steps}"
        if not cut:
            break
        steps += 2
    assert steps >= 5


def question(path: Path) -> bytes:
    """What the C daemon asks, and its answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(LIMIT)
        connection.connect(str(path))
        connection.sendall(b"source=work\nintended_target=vault\nservice_and_arg=qubes.Gpg+\n\n")
        return b"".join(iter(lambda: connection.recv(4096), b""))


@contextmanager
def daemon(program: Path, folder: Path) -> Iterator[Path]:
    """The installed policy daemon, isolated as its launcher has it; it tells when it is ready."""
    path = folder / "policy.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(LIMIT)
        manager.bind(str(folder / "notify"))
        options = [f"--policy-path={folder}", f"--socket-path={path}"]
        options += [f"--eval-socket-path={folder}/simple", f"--gui-socket-path={folder}/gui"]
        running = subprocess.Popen(
            [sys.executable, "-I", program, *options],
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
            stderr=subprocess.PIPE,
        )
        try:
            assert manager.recv(100) == b"READY=1"
            yield path
            running.terminate()
            _, errors = running.communicate(timeout=LIMIT)
            assert running.returncode == 0, errors.decode()
        finally:
            running.kill()
            running.communicate()


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path leaves room for a socket's in an address, which ends at 107 bytes."""
    return tmp_path_factory.mktemp("s")


def test_the_installed_daemon_tells_that_it_is_ready_and_decides(
    built: Path, tmp_path: Path, short: Path
) -> None:
    root = stock_root(tmp_path)
    install(built, root, "instead", None)
    with daemon(root / "usr/lib/qubes-admin-core/bin/qrexec-policy-daemon", short) as path:
        # No qubesd tells it of the qubes: it denies.
        assert question(path).split() == [b"result=deny"]


def test_the_installed_fallback_has_the_daemons_answer_soon(built: Path, tmp_path: Path, short: Path) -> None:
    """60 ms where a Python that does nothing takes 7.5; other tests run beside this one and slow both."""
    root = stock_root(tmp_path)
    install(built, root, "instead", None)
    programs = root / "usr/lib/qubes-admin-core/bin"

    def seconds(*command: str | Path) -> tuple[float, subprocess.CompletedProcess[str]]:
        started = time.perf_counter()
        done = run(*command, check=False)
        return time.perf_counter() - started, done

    asked, bare = [], []
    with daemon(programs / "qrexec-policy-daemon", short) as path:
        for _ in range(10):
            took, done = seconds(
                programs / "qrexec-policy-exec", f"--socket-path={path}", "--", "work", "vault", "qubes.Gpg+"
            )
            assert (done.returncode, done.stdout) == (1, "result=deny\n")
            asked.append(took)
            bare.append(seconds("/usr/bin/python3", "-I", "-S", "-c", "pass")[0])
    assert min(asked) <= 8 * min(bare)


def test_the_installed_fallback_takes_nothing_from_the_caller(
    built: Path, tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its folder nor its environment nor a user's own packages have a say in what is imported."""
    root = stock_root(tmp_path / "root")
    install(built, root, "instead", None)
    trap = tmp_path / "trap"
    for folder in (trap, trap / "broker"):
        folder.mkdir()
    for module in ("argparse.py", "socket.py", "sitecustomize.py", "broker/__init__.py"):
        (trap / module).write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    monkeypatch.setenv("PYTHONPATH", str(trap))
    monkeypatch.setenv("PYTHONSTARTUP", str(trap / "socket.py"))
    monkeypatch.chdir(trap)
    done = run(root / "usr/lib/qubes-admin-core/bin/qrexec-policy-exec", "work", "vault", "a.B", check=False)
    assert (done.returncode, done.stdout) == (1, "result=deny\n")
    assert not (tmp_path / "sprung").exists()


def test_the_installed_daemon_needs_neither_lxml_nor_libvirt(built: Path, tmp_path: Path) -> None:
    root = stock_root(tmp_path)
    install(built, root, "instead", None)
    python = root / "usr/lib/qubes-admin-core/python"
    code = (
        f"import sys; sys.path.insert(0, {str(python)!r}); import broker.deciding.daemon\n"
        "print(sorted({'lxml', 'libvirt'} & set(sys.modules)))"
    )
    assert run(sys.executable, "-I", "-c", code).stdout == "[]\n"


def dpkg(root: Path, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """dpkg in a scratch root that holds none of the packages that ours depend on."""
    options = ["--force-not-root", "--force-script-chrootless", "--force-depends", "--force-confold"]
    return run("dpkg", f"--root={root}", f"--log={root}/dpkg.log", *options, *words, check=check)


def dpkg_root(root: Path) -> Path:
    needs("dpkg", "dpkg-deb")
    admin = root / "var/lib/dpkg"
    for folder in ("info", "updates", "triggers"):
        (admin / folder).mkdir(parents=True)
    (admin / "status").touch()
    return root


def files_of(root: Path) -> dict[str, str]:
    """Without dpkg's own books."""
    mine = snapshot(root)
    return {name: what for name, what in mine.items() if not name.startswith(("var/lib/dpkg/", "dpkg.log"))}


def test_the_policy_package_comes_goes_and_leaves_the_stock_daemon(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    root = dpkg_root(stock_root(tmp_path))
    stock = files_of(root)
    dpkg(root, "--install", packages["qubes-admin-policy"])
    assert mode(root) == "stock"
    program = root / "usr/lib/qubes-admin-core"
    assert list(program.glob("python/policy_engine/__pycache__/*.pyc"))
    switch(root, "instead", None)
    # An upgrade keeps the mode, removal puts the stock daemon back.
    dpkg(root, "--install", packages["qubes-admin-policy"])
    assert (mode(root), fallback_of(root)) == ("instead", "ours")
    dpkg(root, "--remove", "qubes-admin-policy")
    assert fallback_of(root) == "stock"
    assert files_of(root) == stock


def test_the_script_leaves_to_the_package_what_the_package_brought(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    root = dpkg_root(tmp_path / "root")
    dpkg(root, "--install", packages["qubes-admin-policy"])
    before = snapshot(root)
    with pytest.raises(SwitchError, match="a package brought it"):
        install(small_wheel(tmp_path), root, "beside", None)
    with pytest.raises(SwitchError, match="a package brought it"):
        remove(root, None)
    assert snapshot(root) == before


def test_the_whole_package_keeps_the_policy_that_somebody_edited(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    root = dpkg_root(tmp_path)
    dpkg(root, "--install", packages["qubes-admin-policy"], packages["qubes-admin-core"])
    edited = root / "etc/qubes/policy.d/90-default.policy"
    edited.write_text("# ours\n")
    dpkg(root, "--install", packages["qubes-admin-core"])
    assert edited.read_text() == "# ours\n"
    assert (root / "usr/lib/systemd/system/qubesd.service").is_file()
    dpkg(root, "--remove", "qubes-admin-core")
    assert edited.read_text() == "# ours\n"


def test_the_whole_package_writes_over_no_service_of_anothers(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    root = dpkg_root(tmp_path / "root")
    other = tmp_path / "other"
    (other / "DEBIAN").mkdir(parents=True)
    (other / "DEBIAN/control").write_text(
        "Package: stock\nVersion: 1\nArchitecture: all\nMaintainer: x <x@localhost>\nDescription: x\n"
    )
    service = Path("etc/qubes-rpc/qubes.NotifyTools")
    (other / service).parent.mkdir(parents=True)
    (other / service).write_text("#!/bin/sh\n")
    run("dpkg-deb", "--root-owner-group", "--build", other, tmp_path / "stock.deb")
    dpkg(root, "--install", tmp_path / "stock.deb", packages["qubes-admin-policy"])
    before = files_of(root)
    refused = dpkg(root, "--install", packages["qubes-admin-core"], check=False)
    assert refused.returncode != 0
    assert f"'/{service}', which is also in package stock" in refused.stderr
    assert files_of(root) == before


@pytest.mark.parametrize("name", ["qubes-admin-policy", "qubes-admin-core"])
def test_what_the_package_says_to_start_is_in_a_package(packages: dict[str, Path], name: str) -> None:
    """Every link leads to a file of the packages, or to a socket that a daemon or the agent makes itself."""
    needs("dpkg-deb")
    listed = "".join(run("dpkg-deb", "--contents", path).stdout for path in packages.values())
    there = {line.split()[5][1:] for line in listed.splitlines()}
    own = run("dpkg-deb", "--contents", packages[name]).stdout
    ends = {line.split(" -> ")[1] for line in own.splitlines() if " -> " in line}
    assert ends
    made = {debian.AGENT_SOCKET, Path("/var/run/qubesd.sock"), Path("/var/run/qubesd.misc.sock")}
    assert ends - there <= {str(socket) for socket in made}


def test_man_finds_a_page_of_every_program_that_is_installed(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    needs("man")
    for package in packages.values():
        run("dpkg-deb", "--extract", package, tmp_path)
    programs = tmp_path / "usr/lib/qubes-admin-core/bin"
    # As in a root of its own, where the links lead to its own files.
    for link in (tmp_path / "usr/share/man").glob("*/*"):
        leads = tmp_path / link.readlink().relative_to("/")
        assert leads.is_file()
        link.unlink()
        link.symlink_to(leads)
    for program in programs.iterdir():
        assert run("man", "-M", tmp_path / "usr/share/man", "--where", program.name).stdout
        # Beside the programs too, for a dom0 in which nothing else of ours is.
        environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
        found = subprocess.run(
            ["man", "--where", program.name], env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.startswith(str(programs.parent))


def test_the_installed_services_answer(packages: dict[str, Path], short: Path) -> None:
    """Each as the qrexec daemon runs it, for a qubesd that is not there."""
    importer, to_importer = "qubes-volume-import", "--qubesd-internal-socket-path"
    needs("dpkg-deb")
    for package in packages.values():
        run("dpkg-deb", "--extract", package, short)
    for service, program, argument, option, data, kind in (
        ("admin.vm.volume.Import", importer, "private", to_importer, b"", b"StoragePoolException"),
        ("admin.vm.volume.ImportWithSize", importer, "private", to_importer, b"none\n", b"ProtocolError"),
        ("admin.vm.Console", "qubes-console", "", "--qubesd-socket-path", b"", b"QubesException"),
    ):
        link = short / "etc/qubes-rpc" / service
        assert (short / link.readlink().relative_to("/")).exists()
        link.unlink()
        link.symlink_to(short / "usr/lib/qubes-admin-core/bin" / program)
        done = subprocess.run(
            [sys.executable, "-I", link, argument, f"{option}={short}/none"],
            input=data,
            capture_output=True,
            check=False,
            timeout=LIMIT,
            env={
                "QREXEC_REMOTE_DOMAIN": "work",
                "QREXEC_REQUESTED_TARGET_TYPE": "name",
                "QREXEC_REQUESTED_TARGET": "vault",
            },
        )
        assert (done.returncode, done.stdout[:2]) == (1, b"2\0"), done.stderr
        assert kind in done.stdout


def test_the_installed_agent_starts_with_the_session_and_serves_its_services(
    packages: dict[str, Path], short: Path
) -> None:
    needs("dpkg-deb")
    for package in packages.values():
        run("dpkg-deb", "--extract", package, short)
    services = short / "etc/qubes-rpc"
    names = ("policy.Ask", "policy.Notify", "device-agent.GUI")
    assert {(services / name).readlink() for name in names} == {SOCKET}
    entry = configparser.ConfigParser()
    entry.read(short / "etc/xdg/autostart/qrexec-policy-agent.desktop")
    program = short / Path(entry["Desktop Entry"]["Exec"]).relative_to("/")
    place = short / program.readlink().relative_to("/")
    # It has come as far as to look for a terminal.
    done = run(sys.executable, "-I", place, "--tty", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this is no terminal" in done.stderr


def test_every_call_is_a_service_of_qrexec(packages: dict[str, Path], tmp_path: Path) -> None:
    """A link to the socket that serves it, where it is no program."""
    needs("dpkg-deb")
    run("dpkg-deb", "--extract", packages["qubes-admin-core"], tmp_path)
    links = {link.name: link.readlink() for link in (tmp_path / "etc/qubes-rpc").iterdir()}
    calls = {*METHODS, *MISC, *POLICY_CALLS, *IMPORTS}
    agents = {"policy.Ask", "policy.Notify", "device-agent.GUI"}
    assert links.keys() == calls | agents | {"policy.RegisterArgument"}
    programs = {*IMPORTS, *POLICY_CALLS, "admin.vm.Console"}
    for name in calls:
        place = "/usr/lib/qubes-admin-core/bin" if name in programs else "/var/run"
        assert str(links[name].parent) == place, name
    assert {name for name in calls if links[name].name == "qubesd.misc.sock"} == set(MISC)


def test_the_installed_qubesd_serves_a_new_system(packages: dict[str, Path], short: Path) -> None:
    needs("dpkg-deb")
    for package in packages.values():
        run("dpkg-deb", "--extract", package, short / "root")
    system = short / "system"
    program = short / "root/usr/lib/qubes-admin-core/bin/qubesd"
    shutil.copytree(short / "root/etc/qubes", system / "etc/qubes")
    running = subprocess.Popen(
        [sys.executable, "-I", program, "--root", system], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + LIMIT
        said = ""
        assert running.stderr is not None
        while "ready: " not in said:
            assert time.monotonic() < deadline
            line = running.stderr.readline()
            assert line, f"qubesd ended: {said}"
            said += line
        running.terminate()
        assert running.wait(LIMIT) == 0
    finally:
        running.kill()
        running.communicate()
