"""``qubesd --check``: what it says of a file, how it ends, and that it leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.daemon import main
from tests.qubesd.store.versions import STOCK_4_0, STOCK_4_3

STRANGE = STOCK_4_3.replace("<qubes>", '<qubes><later a="1"/>').replace(
    '<property name="default_netvm">',
    '<!-- x --><property name="later">x\n</property><property name="default_netvm">',
)


def tried(file: Path, *options: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["--check", str(file), *options])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("document", "status", "said"),
    [
        pytest.param(
            STOCK_4_0,
            0,
            [
                "can be taken over, with 1 AdminVM, 2 AppVM, 1 TemplateVM",
                "changes when it is written for the first time:",
                "  domains/work/properties/hvm: goes: 'True'",
                "  domains/work/properties/virt_mode: comes: 'hvm'",
                "  labels/gray/@color: '0x555753' becomes '0x555555'",
            ],
            id="4.0",
        ),
        pytest.param(
            STRANGE,
            0,
            [
                "not understood, and kept as it is:\n  later\n  properties/later\n",
                "odd:\n",
                "qubes.xml:14: unknown property 'later' is kept as it is\n",
                "  comments and instructions go: 1",
            ],
            id="strange",
        ),
        pytest.param("<QubesVmCollection/>", 1, [":1: written by Qubes 3.2", "restore a backup"], id="3"),
        pytest.param(
            STOCK_4_3[:-10], 1, [": not well-formed XML: ", "\ndo: mend what is said in a copy"], id="cut"
        ),
        pytest.param(
            STOCK_4_3.replace("zfs", "btrfs"),
            0,
            ["kept, and of no use on this host:\n  pool 'default': there is no driver 'btrfs', of "],
            id="driver",
        ),
        pytest.param(
            STOCK_4_3.replace(">tpl<", ">\x9b31m<", 1), 1, ["\\x9b31m"], id="what-a-terminal-would-act-upon"
        ),
        pytest.param(None, 2, ["cannot be read: No such file or directory\ndo: name a file"], id="missing"),
    ],
)
def test_what_is_said_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], document: str | None, status: int, said: list[str]
) -> None:
    file = tmp_path / "qubes.xml"
    if document is not None:
        file.write_text(document, encoding="utf-8")
    assert tried(file) == status
    out, err = capsys.readouterr()
    assert [text for text in said if text not in out] == []
    assert err == ""
    assert out.replace("\n", "").isprintable()


def test_a_program_gets_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "qubes.xml"
    file.write_text(STRANGE, encoding="utf-8")
    assert tried(file, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["taken"], document["error"], document["qubes"]) == (True, None, 4)
    assert document["classes"] == {"AdminVM": 1, "AppVM": 2, "TemplateVM": 1}
    assert document["kept"] == ["later", "properties/later"]
    assert document["changes"] == [{"place": "labels/gray/@color", "before": "0x555753", "after": "0x555555"}]
    file.write_text("<qubes/>", encoding="utf-8")
    assert tried(file, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["taken"], document["error"]) == (False, f"{file}:1: <labels> is missing")


def test_nothing_is_written_beside_the_file_either(tmp_path: Path) -> None:
    file = tmp_path / "qubes.xml"
    file.write_text(STOCK_4_0, encoding="utf-8")
    (tmp_path / "qubes.xml~left").write_text("by a killed write")
    traces = {
        path: (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()) for path in tmp_path.iterdir()
    }
    folder = tmp_path.stat().st_mtime_ns
    assert tried(file) == 0
    assert tmp_path.stat().st_mtime_ns == folder
    assert {
        path: (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()) for path in tmp_path.iterdir()
    } == traces


def test_json_belongs_to_what_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--json"])
    assert ended.value.code == 2
    assert "--check or --doctor" in capsys.readouterr().err
