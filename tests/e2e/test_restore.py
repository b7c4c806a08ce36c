"""What a restore does to a system and what it leaves alone, by the program that people type."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qubesd.model.state import Klass, Qube
from tests.broker.backup.forge import (
    SIZE,
    Member,
    good,
    image,
    inner,
    of_file,
    of_header,
    of_store,
    store,
    written,
)
from tests.broker.backup.homes import HOME, entry, home, link, with_home
from tests.broker.rig import Daemon, serving
from tests.e2e.backup_rig import ask, phrase_in, program, restored
from tests.qubesd.backup.by_hand import needs_scrypt

pytestmark = needs_scrypt

POLICY = """\
admin.vm.List * caller dom0 allow target=dom0
admin.label.List * caller dom0 allow target=dom0
"""


@pytest.fixture(scope="module")
def phrase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phrase_in(tmp_path_factory.mktemp("phrase"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("daemon"), POLICY) as daemon:
        daemon.create("caller")
        yield daemon


def test_a_name_that_is_taken_gets_a_number(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    rules = b'<firewall version="2"><rules><rule><properties><property name="action">drop</property>'
    path = "vm2/firewall.xml"
    firewall = of_file(path, inner(path, rules + b"</properties></rule></rules></firewall>"))
    archive = written(tmp_path / "a", [*good(), firewall])
    for said in ("work: restored\n", "work-1: restored (was work)\n"):
        done = restored(daemon, phrase, archive, "work")
        assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    for name in ("work", "work-1"):
        assert (daemon.root / f"var/lib/qubes/appvms/{name}/private.img").read_bytes() == b"x" * SIZE
        assert ask(daemon, "admin.vm.notes.Get", name) == "n"
        assert ask(daemon, "admin.vm.firewall.Get", name) == "action=drop\n"
        ask(daemon, "admin.vm.Remove", name)


BROKEN = "vm3/private.img"


@pytest.mark.parametrize(
    ("members", "words", "said"),
    [
        pytest.param(good()[:-1], [], "is missing", id="cut-short"),
        pytest.param(
            [*good()[:-1], of_file(BROKEN, inner("../x", b"x"))], [], "holds another file", id="path-trick"
        ),
        pytest.param(
            [*good()[:-1], Member(f"{BROKEN}.000.enc", image(2).content)], [], "damaged", id="moved"
        ),
        pytest.param(good(), ["nosuch"], "no qube 'nosuch'", id="not-in-it"),
        pytest.param([*of_header(version="3"), *good()[2:]], [], "stock tools", id="older"),
    ],
)
def test_what_is_refused_changes_nothing(
    daemon: Daemon, phrase: Path, tmp_path: Path, members: list[Member], words: list[str], said: str
) -> None:
    state = (daemon.root / "var/lib/qubes/qubes.xml").read_bytes()
    done = restored(daemon, phrase, written(tmp_path / "a", members), *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert (daemon.root / "var/lib/qubes/qubes.xml").read_bytes() == state
    assert not (daemon.root / "var/lib/qubes/appvms/mail").exists()


def test_the_policy_judges_who_restores(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    done = restored(daemon, phrase, written(tmp_path / "a", good()), "--source", "caller")
    assert done.returncode == 1
    assert "work: cannot be made: admin.vm.Create.StandaloneVM: " in done.stderr
    assert "work" not in ask(daemon, "admin.vm.List")


def test_what_is_not_here_is_told_and_the_rest_restored(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    """A label, a tag of another system, a network that is gone: the qube is red and has no network."""
    text = store().replace(b"cc0000", b"cc0001").replace(b">red<", b">ruby<")
    marked = text.replace(
        b'<property name="label">ruby</property>',
        b'<property name="label">ruby</property><property name="netvm">gone</property>'
        b'<property name="backup_timestamp">1700000000</property><property name="shade">dark</property>',
    ).replace(b"<tags/>", b'<tags><tag name="created-by-alice"/><tag name="mine"/></tags>')
    gone = marked.replace(b'name="name">mail<', b'name="name">gone<')
    members = good()
    members[2] = of_store(gone)
    done = restored(daemon, phrase, written(tmp_path / "a", members), "work")
    assert (done.returncode, done.stdout) == (1, "work: restored\n")
    assert "work: there is no label 'ruby'; it is red now" in done.stderr
    assert "work: property 'shade' is not known here" in done.stderr
    assert "work: property 'netvm': admin.vm.property.Set: no qube 'gone'" in done.stderr
    assert ask(daemon, "admin.vm.property.Get", "work", "netvm") == "default=False type=vm "
    assert ask(daemon, "admin.vm.property.Get", "work", "backup_timestamp").endswith(" 1700000000")
    assert ask(daemon, "admin.vm.tag.List", "work").split() == [
        *("audiovm-dom0", "created-by-dom0", "guivm-dom0", "mine")
    ]
    ask(daemon, "admin.vm.Remove", "work")


def test_names_follow_the_qubes_that_have_them(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    """A router whose name is taken here, a client of it, and a qube of another host."""
    marks = {"backup-content": "1", "backup-path": "vm4/", "backup-size": "0"}
    uuid = "00000000-0000-4000-8000-00000000000"
    far = Qube("far", 4, f"{uuid}4", Klass.REMOTE, {"label": "red"}, {**marks, "x": "y"})
    more = store({"mail": {}, "work": {}}, far).decode()
    for name, prop, value in (("mail", "provides_network", "True"), ("work", "netvm", "mail")):
        label, more_ = '<property name="label">', f'<property name="{prop}">{value}</property>'
        head, tail = more.split(f'<property name="name">{name}<', 1)
        at = head.rindex(label)
        more = f'{head[:at]}{more_}{head[at:]}<property name="name">{name}<{tail}'
    members = [*good(), of_file("vm4/empty", inner("vm4/empty"))]
    members[2] = of_store(more.encode())
    daemon.create("mail")
    done = restored(daemon, phrase, written(tmp_path / "a", members))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [
        "far: restored",
        "mail-1: restored (was mail)",
        "work: restored",
    ]
    assert ask(daemon, "admin.vm.property.Get", "work", "netvm") == "default=False type=vm mail-1"
    assert ask(daemon, "admin.vm.feature.List", "far") == "x\n"
    for name in ("work", "far", "mail", "mail-1"):
        assert "backup-restore-in-progress" not in ask(daemon, "admin.vm.tag.List", name)
        ask(daemon, "admin.vm.Remove", name)


ADDED = [
    of_file(path, inner(path, content))
    for path, content in (("vm2/keepsake", b"k"), ("vm3/keepsake", b"of mail"), ("vm3/b.conf", b""))
]


def test_files_of_extensions_are_put_where_one_says(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    archive = written(tmp_path / "a", [*good(), *ADDED])
    ask(daemon, "admin.vm.Create.StandaloneVM", payload="name=mail label=red")
    files = tmp_path / "files"
    done = restored(daemon, phrase, archive, "--files", str(files))
    assert (done.returncode, done.stderr) == (0, "")
    found = {str(file.relative_to(files)): file.read_bytes() for file in files.rglob("*") if file.is_file()}
    assert found == {"work/keepsake": b"k", "mail-1/keepsake": b"of mail", "mail-1/b.conf": b""}
    assert {file.stat().st_mode & 0o077 for file in (files, *files.rglob("*"))} == {0}
    state = (daemon.root / "var/lib/qubes/qubes.xml").read_bytes()
    done = restored(daemon, phrase, archive, "--files", str(files))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{files}: is there; name a folder that is not" in done.stderr
    assert (daemon.root / "var/lib/qubes/qubes.xml").read_bytes() == state
    for name in ("work", "mail", "mail-1"):
        ask(daemon, "admin.vm.Remove", name)


def test_files_of_extensions_are_not_left_silently(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    done = restored(daemon, phrase, written(tmp_path / "a", [*good(), *ADDED]), "work")
    assert (done.returncode, done.stdout) == (1, "work: restored\n")
    assert "work: file 'keepsake' of an extension was left; --files DIR" in done.stderr
    ask(daemon, "admin.vm.Remove", "work")


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(of_file("vm3/b.conf", inner("../b.conf", b"x")), id="path-trick"),
        pytest.param(of_file("vm3/b.conf", inner("vm3/b.conf", bytes((4 << 20) + 1))), id="large"),
    ],
)
def test_files_of_extensions_are_verified_first(
    daemon: Daemon, phrase: Path, tmp_path: Path, last: Member
) -> None:
    done = restored(
        daemon, phrase, written(tmp_path / "a", [*good(), last]), "--files", str(tmp_path / "files")
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "'vm3/b.conf'" in done.stderr
    assert not (tmp_path / "files").exists()


ANN = home(entry(f"{HOME}/x", b"of ann"))


def test_dom0_comes_with_all_the_others(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    archive = written(tmp_path / "a", with_home(ANN))
    done = restored(daemon, phrase, archive, "--home", str(tmp_path), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["restored"] == {"mail": "mail", "work": "work"}
    made = Path(answer["home"])
    assert made.parent == tmp_path
    assert (made / "x").read_bytes() == b"of ann"
    for name in ("work", "mail"):
        ask(daemon, "admin.vm.Remove", name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--exclude", "dom0"], "mail: restored\nwork: restored\n", id="excluded"),
        pytest.param(["work"], "work: restored\n", id="not-named"),
        pytest.param(["--exclude", "dom0", "--exclude", "work"], "mail: restored\n", id="two-excluded"),
    ],
)
def test_dom0_is_left_out(daemon: Daemon, phrase: Path, tmp_path: Path, words: list[str], said: str) -> None:
    """Nobody asks then where its home is to go."""
    done = restored(daemon, phrase, written(tmp_path / "a", with_home(ANN)), *words)
    assert (done.returncode, "".join(sorted(done.stdout.splitlines(True))), done.stderr) == (0, said, "")
    for line in said.splitlines():
        ask(daemon, "admin.vm.Remove", line.partition(":")[0])


def test_dom0_alone_needs_no_daemon(phrase: Path, tmp_path: Path) -> None:
    archive = written(tmp_path / "a", with_home(ANN))
    done = program(
        *("restore", "--root", tmp_path / "none", "--passphrase-file", phrase),
        *("--home", tmp_path, archive, "dom0"),
    )
    (made,) = tmp_path.glob("home-restore-*")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"dom0: restored into {made}\n", "")


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        pytest.param(home(link(f"{HOME}/x", "/etc/passwd")), [], "is no path of a home", id="hostile"),
        pytest.param(ANN[:-512], [], "is cut short", id="cut"),
        pytest.param(ANN, ["dom0", "--source", "caller"], "for dom0 only", id="for-another-qube"),
        pytest.param(ANN, ["--exclude", "nosuch"], "no qube 'nosuch'", id="excluded-and-not-there"),
        pytest.param(ANN, ["work", "--exclude", "work"], "nothing to restore", id="nothing"),
    ],
)
def test_what_is_refused_of_a_home_changes_nothing(
    daemon: Daemon, phrase: Path, tmp_path: Path, content: bytes, words: list[str], said: str
) -> None:
    state = (daemon.root / "var/lib/qubes/qubes.xml").read_bytes()
    archive, place = written(tmp_path / "a", with_home(content)), tmp_path / "place"
    place.mkdir()
    done = restored(daemon, phrase, archive, *words, "--home", str(place))
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert (daemon.root / "var/lib/qubes/qubes.xml").read_bytes() == state
    assert os.listdir(place) == []


def test_a_home_with_nowhere_to_go_is_told_before_anything_is_done(
    daemon: Daemon, phrase: Path, tmp_path: Path
) -> None:
    done = restored(daemon, phrase, written(tmp_path / "a", with_home(ANN)))
    assert (done.returncode, done.stdout) == (1, "")
    assert "name a folder with --home, or leave it out with --exclude dom0" in done.stderr
    assert "work" not in ask(daemon, "admin.vm.List")


def test_who_restores_for_another_qube_gets_no_home(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    archive = written(tmp_path / "a", with_home(ANN))
    done = restored(daemon, phrase, archive, "--home", str(tmp_path), "--source", "caller")
    assert "work: cannot be made" in done.stderr
    assert "dom0" not in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_devices_come_back(daemon: Daemon, phrase: Path, tmp_path: Path) -> None:
    """One without a mode is required, as it was when nothing else could be said."""
    devices = (
        b'<devices class="block"><device backend-domain="mail" id="sda" mode="ask-to-attach" identity="x:y">'
        b'<option name="read-only">it\'s "so" \\</option></device></devices>'
        b'<devices class="pci"><device backend-domain="dom0" id="00_1f.2"/></devices>'
    )
    head, tail = store().split(b">work<")
    members = good()
    members[2] = of_store(head + b">work<" + tail.replace(b"<tags/>", b"<tags/>" + devices, 1))
    daemon.create("mail")
    done = restored(daemon, phrase, written(tmp_path / "a", members))
    assert (done.returncode, done.stderr) == (0, "")
    assert ask(daemon, "admin.vm.device.block.Assigned", "work") == (
        "mail-1+sda:x:y device_id='x:y' port_id='sda' devclass='block' backend_domain='mail-1' "
        "mode='ask-to-attach' _read-only='it\\'s \"so\" \\'\n"
    )
    assert ask(daemon, "admin.vm.device.pci.Assigned", "work").endswith(" mode='required'\n")
    for name in ("work", "mail", "mail-1"):
        ask(daemon, "admin.vm.Remove", name)
