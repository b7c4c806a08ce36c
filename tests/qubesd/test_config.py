"""The configuration: every key, and every error with its file and line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from qubesd.config import Config, ConfigError, load, parse, rooted

PLACE = Path("/etc/qubes/qubesd.toml")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param("", {}, id="nothing"),
        pytest.param('visibility = "strict"\n', {"visibility": "strict"}, id="a-word"),
        pytest.param("trust_qrexec_consent = true\n", {"trust_qrexec_consent": True}, id="a-switch"),
        pytest.param(
            """guest_service = "/bin/true {qube} '{service} x'"\n""",
            {"guest_service": "/bin/true {qube} '{service} x'"},
            id="quoted",
        ),
        pytest.param("audit_size = 1\naudit_files = 3\n", {"audit_size": 1, "audit_files": 3}, id="numbers"),
        pytest.param('log_dir = "/elsewhere"\n', {"log_dir": Path("/elsewhere")}, id="a-path"),
        pytest.param('channels_owner = "4242"\n', {"channels_owner": "4242"}, id="a-user-by-uid"),
        pytest.param(
            '[users]\n1001 = "bob"\n1000 = "alice"\n', {"users": ((1000, "alice"), (1001, "bob"))}, id="users"
        ),
    ],
)
def test_what_is_said_goes_over_the_defaults(text: str, want: dict[str, object]) -> None:
    assert parse(text, PLACE, Config()) == dataclasses.replace(Config(), **want)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a = \n", "1: column 5: invalid value", id="syntax"),
        pytest.param("visibility = 'stock'\nx = [1,", "2: column 1: ", id="syntax-at-the-end"),
        pytest.param("\nvisibilty = 'strict'\n", "2: unknown key 'visibilty'", id="unknown-key"),
        pytest.param(
            "visibility = 'full'\n",
            "1: 'visibility' must be one of 'stock', 'strict', found 'full'",
            id="word",
        ),
        pytest.param(
            "\n\non_error = 'x'\n", "3: 'on_error' must be one of 'deny', 'last-good', found 'x'", id="line"
        ),
        pytest.param(
            "trust_qrexec_consent = 1\n", "1: 'trust_qrexec_consent' must be a boolean", id="no-boolean"
        ),
        *(
            pytest.param(
                f'guest_service = "{command}"\n', "1: 'guest_service' must be empty, or a command", id=command
            )
            for command in (
                "qrexec-client -d {qube} {service}",
                "/bin/true {service}",
                "/bin/true {qube}",
                "/bin/true '{qube} {service}",
            )
        ),
        pytest.param("audit_size = true\n", "1: 'audit_size' must be a whole number", id="no-number"),
        pytest.param(
            "audit_size = 0\n", "1: 'audit_size' must be from 1 to 4096, found 0", id="out-of-range"
        ),
        pytest.param(
            "run_dir = 'run'\n", "1: 'run_dir' must be an absolute path, found 'run'", id="relative"
        ),
        pytest.param("run_dir = 7\n", "1: 'run_dir' must be a text, found 7", id="no-path"),
        pytest.param("channels_owner = 'no such'\n", "1: 'channels_owner' must be a user", id="no-user"),
        pytest.param("users = 3\n", "1: 'users' must be a table", id="users-no-table"),
        pytest.param("[users]\n0 = 'alice'\n", "2: root calls over qubesd.sock", id="root-mapped"),
        pytest.param("[users]\nroot = 'alice'\n", "2: root calls over qubesd.sock", id="root-by-name"),
        pytest.param("[users]\n'no such' = 'alice'\n", "2: no user of the name 'no such'", id="unknown-user"),
        pytest.param(
            "[users]\n1000 = 'dom0'\n", "2: expected the name of a management qube, found 'dom0'", id="dom0"
        ),
        pytest.param(
            "[users]\n1000 = 3\n", "2: expected the name of a management qube, found 3", id="no-qube"
        ),
        pytest.param("[users]\n1000 = 'a'\n01000 = 'b'\n", "3: the user '01000' is mapped twice", id="twice"),
    ],
)
def test_an_error_has_its_file_and_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, PLACE, Config())
    assert str(caught.value).startswith(f"{PLACE}:{message}")


def test_under_a_root_everything_lies_below_it(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config == rooted(tmp_path)
    paths = [value for value in dataclasses.astuple(config) if isinstance(value, Path)]
    assert paths
    assert all(path.is_relative_to(tmp_path) for path in paths)


def test_the_file_below_a_root_is_read(tmp_path: Path) -> None:
    file = tmp_path / "etc/qubes/qubesd.toml"
    file.parent.mkdir(parents=True)
    file.write_text("visibility = 'strict'\n")
    assert load(tmp_path).visibility == "strict"
    other = tmp_path / "other.toml"
    other.write_text("audit_size = 2\n")
    assert (load(tmp_path, other).visibility, load(tmp_path, other).audit_size) == ("stock", 2)


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path, tmp_path / "missing.toml")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"x\.toml: cannot be read"):
        load(None, file)
