"""Profiles: what an administrator may write, and what is said of everything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qubesd.backup.profile import Profile, load, parse, selected
from qubesd.errors import NoSuchBackupProfile, QubesError
from qubesd.model.state import Klass, Qube

WHOLE = """\
include: [work, '@tag:keep', '$type:TemplateVM']
exclude: [vault]
destination_vm: sys-usb
destination_path: /mnt/a
compression: zstd
passphrase_vm: gui
"""
LEAST = "include:\ndestination_vm: dom0\ndestination_path: /a\npassphrase_text: x y\n"


def test_all_of_a_profile() -> None:
    assert parse("p", WHOLE.encode()) == Profile(
        name="p",
        include=("work", "@tag:keep", "$type:TemplateVM"),
        exclude=("vault",),
        destination_vm="sys-usb",
        destination_path="/mnt/a",
        compression="zstd",
        passphrase=None,
        passphrase_vm="gui",
    )


@pytest.mark.parametrize(
    ("more", "attribute", "value"),
    [
        pytest.param("", "include", None, id="include-null"),
        pytest.param("", "exclude", (), id="no-exclude"),
        pytest.param("", "compression", "gzip", id="compression-by-default"),
        pytest.param("compression: true", "compression", "gzip", id="compression"),
        pytest.param("compression: false", "compression", None, id="no-compression"),
        pytest.param("passphrase_vm: gui", "passphrase", "x y", id="text-before-qube"),
        pytest.param("passphrase_vm: gui", "passphrase_vm", None, id="qube-not-asked"),
        pytest.param("nonsense: 1", "name", "p", id="unknown-key"),
    ],
)
def test_what_is_not_said(more: str, attribute: str, value: object) -> None:
    assert getattr(parse("p", f"{LEAST}{more}\n".encode()), attribute) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "expected keys and values", id="empty"),
        pytest.param("- work", "expected keys and values", id="list"),
        pytest.param("include: [", "is no YAML at line 1, column", id="no-yaml"),
        pytest.param("include: !!python/object:os.system x", "is no YAML", id="object"),
        *(
            pytest.param(f"{LEAST}x: !!{text}\n", "is no YAML", id=text)
            for text in ("int ''", "int '-'", "bool maybe", "timestamp soon", "float ''", "float -")
        ),
        pytest.param("[" * 50_000, "is no YAML", id="deep"),
        pytest.param("include: \x07", "is no YAML", id="control"),
        pytest.param(LEAST.replace("include:\n", ""), "'include' is missing", id="no-include"),
        pytest.param(LEAST.replace("include:", "include: work"), "must be a list", id="include-text"),
        pytest.param(LEAST.replace("include:", "include: [on]"), "number 1 in quotes", id="yaml-truth"),
        pytest.param(LEAST.replace("include:", "include: ['@any']"), "selects nothing", id="selector"),
        pytest.param(LEAST.replace("dom0", "[dom0]"), "'destination_vm' must be a text", id="vm-list"),
        pytest.param(LEAST.replace("destination_path: /a\n", ""), "'destination_path' must", id="no-path"),
        pytest.param(LEAST.replace("/a", '"/a\\0"'), "'destination_path' must", id="nul"),
        pytest.param(
            LEAST.replace("text: x y", "vm: [x]"), "'passphrase_vm' must be a text", id="phrase-list"
        ),
        pytest.param(LEAST.replace("x y", "''"), "'passphrase_text' must be a text", id="empty-phrase"),
        pytest.param(LEAST.replace("x y", '"a\\nb"'), "is one line", id="phrase-of-two-lines"),
        pytest.param(LEAST.replace("x y", "x" * 1025), "1 to 1024 bytes", id="long-phrase"),
        pytest.param(LEAST.replace("x y", "12345"), "put it in quotes", id="phrase-number"),
        pytest.param(f"{LEAST}compression: rot13\n", "'rot13' compresses no backup", id="filter"),
        pytest.param(f"{LEAST}compression: 'gzip -9'\n", "compresses no backup", id="filter-with-words"),
        pytest.param(f"{LEAST}compression: 1\n", "true, false or the name", id="filter-number"),
    ],
)
def test_what_is_no_profile(text: str, words: str) -> None:
    with pytest.raises(QubesError, match=words):
        parse("p", text.encode())


def test_aliases_do_not_grow() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    with pytest.raises(QubesError, match="must be a list of texts"):
        parse(
            "p",
            f"{LEAST}exclude: *a59\n".encode().replace(b"include:", "\n".join([*lines, "include:"]).encode()),
        )


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        pytest.param("work", True, id="name"),
        pytest.param("wor", False, id="part-of-a-name"),
        pytest.param("@tag:keep", True, id="tag"),
        pytest.param("$tag:keep", True, id="old-tag"),
        pytest.param("@tag:kee", False, id="other-tag"),
        pytest.param("@type:AppVM", True, id="class"),
        pytest.param("$type:TemplateVM", False, id="other-class"),
    ],
)
def test_a_selector(selector: str, wanted: bool) -> None:
    qube = Qube("work", 2, "u", Klass.APP, tags=frozenset({"keep"}))
    assert selected(qube, ["nobody", selector]) is wanted


def test_files(tmp_path: Path) -> None:
    (tmp_path / "good.conf").write_text(LEAST)
    (tmp_path / "long.conf").write_text(LEAST + "#" * 70_000)
    (tmp_path / "bad.conf").write_text("")
    (tmp_path / "folder.conf").mkdir()
    os.mkfifo(tmp_path / "pipe.conf")
    assert load(tmp_path, "good").name == "good"
    for name, words in (
        ("long", "at most 65536 bytes"),
        ("bad", "bad.conf: expected keys"),
        ("folder", "Is a directory"),
        ("pipe", "expected keys"),
    ):
        with pytest.raises(QubesError, match=words):
            load(tmp_path, name)
    for name in ("nosuch", "../good", "a\nb", "a b", "x" * 129, "%s'"):
        with pytest.raises(NoSuchBackupProfile):
            load(tmp_path, name)
