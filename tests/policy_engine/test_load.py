"""Files, directories and includes; first from memory, then from real directories."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from policy_engine import (
    CONFIGURED,
    LEGACY,
    RUNTIME,
    DirectorySource,
    Inclusion,
    Loader,
    MemorySource,
    Policy,
    PolicyError,
    format_rule,
    load,
)
from policy_engine.loading import MAX_DEPTH, MAX_RULES
from policy_engine.read import MAX_FILE
from tests.policy_engine.stock import stock

ALL = (RUNTIME, CONFIGURED, LEGACY)


def tree(files: Mapping[str, str], links: Mapping[str, str] | None = None) -> MemorySource:
    """``r/``, ``c/`` and ``l/`` stand for the runtime, configured and legacy directory."""
    places = {"r": RUNTIME, "c": CONFIGURED, "l": LEGACY}

    def whole(path: str) -> str:
        head, _, rest = path.partition("/")
        return f"{places[head]}/{rest}" if head in places else path

    contents = {whole(path): text.encode() for path, text in files.items()}
    return MemorySource(contents, ALL, {whole(path): target for path, target in (links or {}).items()})


def services(policy: Policy) -> list[str]:
    return [rule.service for rule in stock(policy.rules)]


def rule(service: str) -> str:
    return f"{service} * * * deny\n"


def error(files: Mapping[str, str], links: Mapping[str, str] | None = None) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        load(tree(files, links))
    return caught.value


def test_files_are_taken_by_name_the_runtime_directory_first() -> None:
    policy = load(
        tree(
            {
                "c/20-b.policy": rule("c20"),
                "r/20-b.policy": rule("r20"),
                "c/10.policy": rule("c10"),
                "r/30.policy": "",
                "c/30.policy": rule("shadowed-by-an-empty-file"),
                "c/-x.policy": rule("minus"),
                "c/_x.policy": rule("underscore"),
                "c/a.policy": rule("letter"),
                "c/..policy": rule("dot"),
            }
        )
    )
    assert services(policy) == ["minus", "c10", "r20", "underscore", "letter"]
    assert policy.files[:2] == (f"{CONFIGURED}/-x.policy", f"{CONFIGURED}/10.policy")


@pytest.mark.parametrize(
    "name", ["README", "x.policy~", "x.policy.rpmnew", "X.POLICY", ".policy", ".x.policy", "d.policy/x"]
)
def test_other_files_are_passed_over(name: str) -> None:
    assert services(load(tree({f"c/{name}": "junk", "c/1.policy": rule("a")}))) == ["a"]


@pytest.mark.parametrize(
    "name", ["A.policy", "a+b.policy", "a b.policy", "#a.policy", "é.policy", "a\n.policy"]
)
@pytest.mark.parametrize("directory", ["r", "c"])
def test_a_bad_name_fails_the_load(name: str, directory: str) -> None:
    found = error({f"{directory}/{name}": "", "r/1.policy": rule("a")})
    assert (found.kind, found.line) == ("file-name", None)
    assert "\n" not in str(found)


def test_a_dangling_link_is_no_file_and_a_link_to_one_is() -> None:
    links = {"c/1.policy": "/gone", "c/2.policy": "include/x"}
    policy = load(tree({"c/include/x": rule("a")}, links))
    assert [(rule.service, rule.file) for rule in stock(policy.rules)] == [("a", f"{CONFIGURED}/2.policy")]


@pytest.mark.parametrize("missing", [RUNTIME, CONFIGURED])
def test_both_directories_must_exist(missing: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(MemorySource({}, set(ALL) - {missing}))
    assert (caught.value.kind, caught.value.file) == ("io", missing)
    assert services(load(MemorySource({}, (RUNTIME, CONFIGURED)))) == []


def test_an_include_stands_in_its_place_and_is_relative_to_the_top_level() -> None:
    policy = load(
        tree(
            {
                "c/1.policy": rule("first")
                + "!include include/deep/a\n"
                + rule("last")
                + "!include include/b",
                "c/include/deep/a": rule("a") + "!include include/b\n",
                "c/include/b": rule("b"),
                "r/2.policy": "!include include/../gone/../include/b",
                "r/include/b": rule("runtime-b"),
            }
        )
    )
    assert services(policy) == ["first", "a", "b", "last", "b", "runtime-b"]
    within = Inclusion(f"{CONFIGURED}/1.policy", 2)
    b = policy.rules[2]
    assert (b.file, b.included_from) == (
        f"{CONFIGURED}/include/b",
        Inclusion(f"{CONFIGURED}/include/deep/a", 2, within),
    )
    assert policy.rules[4].included_from == Inclusion(f"{CONFIGURED}/1.policy", 4)
    assert policy.rules[0].included_from is None


def test_include_dir_takes_policy_files_sorted_and_only_those() -> None:
    files = {
        "c/1.policy": "!include-dir d\n!include-dir empty/..",
        "c/d/b.policy": rule("b"),
        "c/d/a.policy": rule("a"),
        "c/d/README": "junk",
        "c/d/sub/c.policy": "junk",
        "c/empty/README": "",
    }
    with pytest.raises(PolicyError) as caught:
        load(tree(files))
    assert caught.value.kind == "include-loop"
    files["c/1.policy"] = "!include-dir d\n!include-dir empty"
    assert services(load(tree(files))) == ["a", "b"]
    assert error({**files, "c/d/B.policy": ""}).kind == "file-name"


@pytest.mark.parametrize(
    ("directive", "kind", "column"),
    [
        pytest.param("!include gone", "not-a-file", 10, id="missing"),
        pytest.param(" !include  d", "not-a-file", 12, id="directory"),
        pytest.param("!include-service s + gone", "not-a-file", 22, id="service"),
        pytest.param("!include-dir gone", "not-a-directory", 14, id="no-directory"),
        pytest.param("!include-dir 1.policy", "not-a-directory", 14, id="file"),
    ],
)
def test_what_is_included_must_be_there(directive: str, kind: str, column: int) -> None:
    found = error({"c/1.policy": f"#\n{directive}\nflawed", "c/d/x": ""})
    assert (found.kind, found.file, found.line, found.column) == (kind, f"{CONFIGURED}/1.policy", 2, column)


def test_the_first_error_in_order_of_loading_is_told() -> None:
    files = {"c/1.policy": rule("a") + "!include i\nflawed", "c/i": "\nalso flawed", "c/2.policy": "flawed"}
    found = error(files)
    assert (found.file, found.line) == (f"{CONFIGURED}/i", 2)
    found = error(files | {"c/i": ""})
    assert (found.file, found.line) == (f"{CONFIGURED}/1.policy", 3)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"c/1.policy": "!include 1.policy"}, id="itself"),
        pytest.param({"c/1.policy": "!include a", "c/a": "!include b", "c/b": "!include a"}, id="others"),
        pytest.param({"c/1.policy": "!include-dir ."}, id="directory"),
        pytest.param({"c/1.policy": "!include-service s + a", "c/a": "$include:./a"}, id="old-syntax"),
        pytest.param({"c/1.policy": "!compat-4.0", "l/s": "!include s"}, id="legacy"),
        pytest.param(
            {"c/1.policy": "!include ../policy.d/./a", "c/a": "!include 1.policy"}, id="other-spelling"
        ),
    ],
)
def test_a_loop_of_includes_is_found(files: dict[str, str]) -> None:
    found = error(files)
    assert (found.kind, found.line) == ("include-loop", None)
    assert ":1" in found.message


def test_a_loop_through_a_link_is_found() -> None:
    assert error({"c/1.policy": "!include a"}, {"c/a": "1.policy"}).kind == "include-loop"


def test_an_old_file_for_many_services() -> None:
    policy = load(
        tree(
            {
                "c/1.policy": "!include-service s.A * old\n!include-service s.B +x old",
                "c/old": "$anyvm dom0 allow\n!include more",
                "c/more": "x,y deny",
            }
        )
    )
    assert [format_rule(rule) for rule in policy.rules] == [
        "s.A * @anyvm dom0 allow",
        "s.A * x y deny",
        "s.B +x @anyvm dom0 allow",
        "s.B +x x y deny",
    ]
    assert [rule.line for rule in policy.rules] == [1, 1, 1, 1]


def test_the_legacy_directory() -> None:
    policy = load(
        tree(
            {
                "c/1.policy": rule("before") + "!compat-4.0\n" + rule("after"),
                "l/s": "a b allow\n$include:more/x",
                "l/s+b": "a b allow",
                "l/s+": "",
                "l/s+a+c": "",
                "l/r": "a b allow",
                "l/+y": "",
                "l/more/x": "x y deny",
                "l/.hidden": "junk",
                "l/s.rpmsave": "junk",
                "l/s.rpmnew": "junk",
                "l/s.swp": "junk",
                "l/s~": "junk",
            }
        )
    )
    implied = ["@anyvm @anyvm deny", "@anyvm @adminvm deny"]
    wanted = [
        "before * * * deny",
        *(f" +y {rest}" for rest in implied),
        "r * a b allow",
        *(f"s + {rest}" for rest in implied),
        *(f"s +a+c {rest}" for rest in implied),
        "s +b a b allow",
        *(f"s +b {rest}" for rest in implied),
        "s * a b allow",
        "s * x y deny",
        "after * * * deny",
    ]
    assert [format_rule(rule) for rule in policy.rules] == wanted
    assert {(rule.file, rule.line) for rule in stock(policy.rules) if rule.argument == "+b"} == {
        (f"{LEGACY}/s+b", 1),
        (f"{LEGACY}/s+b", None),
    }
    assert policy.rules[-2].file == f"{LEGACY}/more/x"
    (warning,) = policy.warnings
    assert warning.startswith(f"{CONFIGURED}/1.policy:2: ")


def test_the_legacy_directory_must_be_there_only_if_it_is_asked_for() -> None:
    files = {f"{CONFIGURED}/1.policy": b"!compat-4.0"}
    with pytest.raises(PolicyError) as caught:
        load(MemorySource(files, (RUNTIME, CONFIGURED)))
    assert (caught.value.kind, caught.value.file) == ("io", LEGACY)


def test_hostile_trees_end_in_an_error_and_soon() -> None:
    doubling = {f"c/{number}": f"!include {number + 1}\n" * 2 for number in range(1, 60)}
    assert error({"c/1.policy": "!include 1", "c/60": "", **doubling}).kind == "io"
    chain = {f"c/{number}": f"!include {number + 1}" for number in range(MAX_DEPTH + 1)}
    assert "deep" in error({"c/1.policy": "!include 0", **chain}).message
    assert "bytes" in error({"c/1.policy": "#" * (MAX_FILE + 1)}).message
    long = {"c/1.policy": "!include a\n" * 20, "c/a": "#" * MAX_FILE}
    assert "includes counted" in error(long).message
    half = rule("a") * (MAX_RULES // 2 + 1)
    assert "rules" in error({"c/1.policy": "!include a\n!include a", "c/a": half}).message


def test_a_deep_chain_within_the_bound_is_read() -> None:
    chain = {f"c/{number}": f"!include {number + 1}" for number in range(MAX_DEPTH - 2)}
    policy = load(tree({"c/1.policy": "!include 0", **chain, f"c/{MAX_DEPTH - 2}": rule("a")}))
    assert services(policy) == ["a"]


class Directories:
    """The three directories below a scratch directory."""

    def __init__(self, root: Path) -> None:
        self.runtime, self.configured, self.legacy = root / "run", root / "etc", root / "rpc"
        for directory in (self.runtime, self.configured, self.legacy):
            directory.mkdir()

    def loader(self) -> Loader:
        return Loader(DirectorySource(), [str(self.runtime), str(self.configured)], str(self.legacy))


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories(tmp_path)


def test_real_directories_are_read(directories: Directories) -> None:
    (directories.configured / "1.policy").write_text("!include include/a\n!compat-4.0\n")
    (directories.configured / "include").mkdir()
    (directories.configured / "include/real").write_text(rule("a"))
    (directories.configured / "include/a").symlink_to("real")
    (directories.configured / "d.policy").mkdir()
    (directories.configured / "gone.policy").symlink_to("gone")
    (directories.runtime / "2.policy").symlink_to(directories.configured / "include/real")
    (directories.legacy / "s").write_text("a b deny")
    policy = directories.loader().load()
    assert [(rule.service, rule.file) for rule in stock(policy.rules)] == [
        ("a", str(directories.configured / "include/real")),
        ("s", str(directories.legacy / "s")),
        ("a", str(directories.runtime / "2.policy")),
    ]


def test_a_pipe_is_no_policy_file_and_keeps_nobody_waiting(directories: Directories) -> None:
    os.mkfifo(directories.configured / "1.policy")
    os.mkfifo(directories.configured / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directories.configured / "3.policy"))
        assert directories.loader().load().rules == ()
        (directories.configured / "2.policy").write_text("!include pipe")
        with pytest.raises(PolicyError, match="expected a file"):
            directories.loader().load()
        with pytest.raises(OSError, match="not a regular file"):
            DirectorySource().read(str(directories.configured / "pipe"), 10)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "a/" * 3000, "\ue000\U0010ffff"])
def test_a_path_that_no_file_can_have_is_a_missing_file(directories: Directories, name: str) -> None:
    (directories.configured / "1.policy").write_text(f"!include {name}\n", encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        directories.loader().load()
    assert (caught.value.kind, caught.value.line) == ("not-a-file", 1)


def test_a_file_name_that_is_no_text_fails_the_load(directories: Directories) -> None:
    Path(os.fsdecode(os.fsencode(directories.configured) + b"/\xff.policy")).touch()
    with pytest.raises(PolicyError) as caught:
        directories.loader().load()
    assert caught.value.kind == "file-name"
    assert str(caught.value).isascii()


def test_an_edit_is_seen_and_everything_else_is_kept(directories: Directories) -> None:
    one, two = directories.configured / "1.policy", directories.configured / "2.policy"
    shared = directories.configured / "shared"
    one.write_text(rule("a") + "!include shared\n")
    two.write_text(rule("b"))
    shared.write_text(rule("c"))
    loader = directories.loader()
    before = loader.load()
    two.write_text("flawed")
    with pytest.raises(PolicyError):
        loader.load()
    two.write_text(rule("d"))
    after = loader.load()
    assert services(before) == ["a", "c", "b"]
    assert services(after) == ["a", "c", "d"]
    assert after.rules[0] is before.rules[0]
    assert after.rules[1] is before.rules[1]

    one.write_text("\n" + one.read_text())
    moved = loader.load()
    assert [rule.line for rule in moved.rules] == [2, 1, 1]
    assert moved.rules[1].included_from == Inclusion(str(one), 3)
    assert moved.rules == directories.loader().load().rules

    one.unlink()
    assert services(loader.load()) == ["d"]


def test_a_file_that_is_not_text_or_not_readable(directories: Directories) -> None:
    path = directories.configured / "1.policy"
    path.write_bytes(b"a * b c deny\n\xff")
    with pytest.raises(PolicyError) as caught:
        directories.loader().load()
    assert (caught.value.kind, caught.value.file) == ("encoding", str(path))


def test_memory_and_disk_resolve_paths_alike(tmp_path: Path) -> None:
    root = Path(os.path.realpath(tmp_path))
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_text("")
    links = {"a/up": "..", "a/b/self": "self", "abs": str(root / "a"), "a/dangling": "gone/x", "in": "a/b"}
    for name, target in links.items():
        (root / name).symlink_to(target)
    memory = MemorySource(
        {str(root / "a/b/file"): b""}, links={str(root / name): target for name, target in links.items()}
    )
    disk = DirectorySource()
    for path in (
        "a/up/a/b/file",
        "abs/b/../b/./file",
        "a/dangling",
        "a/dangling/../../a",
        "in/../b",
        "gone/../a/b",
        "a/b/file/..",
        "in/file",
    ):
        whole = f"{root}/{path}"
        assert memory.resolve(whole) == disk.resolve(whole)
        resolved = disk.resolve(whole)
        assert memory.is_file(resolved) == disk.is_file(resolved)
        assert memory.is_directory(resolved) == disk.is_directory(resolved)
    assert not memory.is_file(f"{root}/a/b/self")
    assert not disk.is_file(f"{root}/a/b/self")
    assert sorted(memory.names(f"{root}/in")) == sorted(disk.names(f"{root}/in")) == ["file"]
