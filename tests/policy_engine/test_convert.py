"""``convert``: where the rules of Qubes 4.0 go, and that every call is decided as before, at every step."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

import pytest

from policy_engine import (
    CONFIGURED,
    LEGACY,
    RUNTIME,
    Conversion,
    MemorySource,
    PolicyError,
    convert,
)
from tests.policy_engine.catalogue import carried_out

DIRECTORIES = (RUNTIME, CONFIGURED)
COMPAT = "!compat-4.0\n"
Tree = dict[str, str]
"""Files by their path in the configured policy; ``old/`` and ``run/`` stand for the other directories."""


def source(tree: Mapping[str, str]) -> MemorySource:
    places = {"old": LEGACY, "run": RUNTIME}
    files = {}
    for path, text in tree.items():
        folder, _, name = path.partition("/")
        place = f"{places[folder]}/{name}" if folder in places else f"{CONFIGURED}/{path}"
        files[place] = text.encode()
    return MemorySource(files, (RUNTIME, CONFIGURED, LEGACY))


def converted(tree: Mapping[str, str]) -> Conversion:
    return convert(source(tree), DIRECTORIES, LEGACY, carried_out)


def files(tree: Mapping[str, str]) -> dict[str, list[str]]:
    """What is written: by name, without comments and empty lines."""
    found = converted({"35-compat.policy": COMPAT, **tree})
    assert found.unlike == []
    return {
        posixpath.basename(path): [line for line in text.decode().splitlines() if line[:1] not in ("#", "")]
        for path, text in found.files.items()
    }


OLD_ASK = "$anyvm $anyvm ask\n"


@pytest.mark.parametrize(
    ("service", "lines", "want"),
    [
        pytest.param(
            "qubes.ClipboardPaste",
            "a $anyvm deny\n$anyvm b ask,notify=yes\n",
            {"50-config-clipboard.policy": ["{} * a @anyvm deny", "{} * @anyvm b ask notify=yes"]},
            id="clipboard",
        ),
        pytest.param(
            "qubes.ClipboardPaste", "a b allow\n", {"30-user.policy": ["{} * a b allow"]}, id="clipboard-user"
        ),
        pytest.param(
            "qubes.Filecopy",
            OLD_ASK,
            {"50-config-filecopy.policy": ["{} * @anyvm @anyvm ask"]},
            id="filecopy",
        ),
        pytest.param(
            "qubes.Filecopy",
            "a b allow,user=root\nc b allow\n",
            {"30-user.policy": ["{} * a b allow user=root"], "50-config-filecopy.policy": ["{} * c b allow"]},
            id="each-rule-where-it-fits",
        ),
        pytest.param(
            "qubes.Filecopy",
            "$tag:t $anyvm deny\n$anyvm b allow,user=root\n",
            {"30-user.policy": ["{} * @tag:t @anyvm deny", "{} * @anyvm b allow user=root"]},
            id="together-where-their-order-counts",
        ),
        pytest.param(
            "qubes.UpdatesProxy",
            "$type:TemplateVM $default allow,target=sys-net\na b allow\n",
            {
                "50-config-updates.policy": [
                    "{} * @type:TemplateVM @default allow target=sys-net",
                    "{} * a b allow",
                ]
            },
            id="updates",
        ),
        pytest.param(
            "qubes.UpdatesProxy",
            "$anyvm b allow\n",
            {"30-user.policy": ["{} * @anyvm b allow"]},
            id="updates-user",
        ),
        pytest.param(
            "qubes.OpenURL",
            "$anyvm $dispvm allow,target=$dispvm:x\na $dispvm ask,default_target=$dispvm\n",
            {
                "50-config-openurl.policy": [
                    "{} * @anyvm @dispvm allow target=@dispvm:x",
                    "{} * a @dispvm ask default_target=@dispvm",
                ]
            },
            id="open-url",
        ),
        pytest.param(
            "qubes.OpenInVM",
            "$anyvm $dispvm allow\n",
            {"30-user.policy": ["{} * @anyvm @dispvm allow"]},
            id="plain-open",
        ),
        pytest.param(
            "qubes.InputMouse",
            "sys-usb dom0 ask,default_target=dom0\nsys-usb $adminvm allow\n",
            {"30-user.policy": ["{} * sys-usb dom0 ask default_target=dom0", "{} * sys-usb @adminvm allow"]},
            id="input-once-for-a-device",
        ),
        pytest.param(
            "qubes.InputKeyboard",
            "sys-usb dom0 deny\nsys-net $adminvm allow\n",
            {"50-config-input.policy": ["{} * sys-usb dom0 deny", "{} * sys-net @adminvm allow"]},
            id="input",
        ),
        pytest.param(
            "u2f.Register", "a sys-usb allow\n", {"50-config-u2f.policy": ["{} * a sys-usb allow"]}, id="u2f"
        ),
        pytest.param(
            "policy.RegisterArgument+u2f.Authenticate",
            "sys-usb $anyvm allow,target=dom0\n",
            {
                "30-user.policy": [
                    "policy.RegisterArgument +u2f.Authenticate sys-usb @anyvm allow target=dom0"
                ]
            },
            id="u2f-user",
        ),
        pytest.param(
            "my.Service+a",
            "a b allow,autostart=no\n",
            {"30-user.policy": ["my.Service +a a b allow autostart=no"]},
            id="others",
        ),
        pytest.param(
            "my.Service",
            "a b deny\n$anyvm $anyvm deny\n",
            {"30-user.policy": ["{} * a b deny"]},
            id="up-to-the-denial",
        ),
        pytest.param("my.Service", "$anyvm $anyvm deny\n", {}, id="what-is-denied-anyway"),
        pytest.param(
            "my.Service",
            "a b allow\n$anyvm $anyvm deny\nb a allow\n",
            {"30-user.policy": ["{} * a b allow", "{} * @anyvm @anyvm deny", "{} * b a allow"]},
            id="nothing-behind-a-denial-is-lost",
        ),
    ],
)
def test_rules_go_to(service: str, lines: str, want: Mapping[str, list[str]]) -> None:
    named = {name: [line.format(service) for line in lines] for name, lines in want.items()}
    assert files({f"old/{service}": lines}) == named


@pytest.mark.parametrize(
    ("tree", "want"),
    [
        pytest.param(
            {
                "90-default.policy": "qubes.Filecopy * @anyvm @anyvm ask\n",
                "old/qubes.Filecopy": "a b allow\n$anyvm $anyvm deny\n",
            },
            {
                "50-config-filecopy.policy": [
                    "qubes.Filecopy * a b allow",
                    "qubes.Filecopy * @anyvm @anyvm deny",
                ]
            },
            id="a-denial-that-counts-is-kept",
        ),
        pytest.param(
            {"90-default.policy": "my.S * @anyvm @anyvm allow\n", "old/my.S+x": "a b ask\n"},
            {
                "30-user.policy": [
                    "my.S +x a b ask",
                    "my.S +x @anyvm @anyvm deny",
                    "my.S +x @anyvm @adminvm deny",
                ]
            },
            id="a-denial-of-the-loader-is-written-down",
        ),
        pytest.param(
            {"90-default.policy": "my.S * a b allow\n", "old/my.S": "a b allow\n"},
            {},
            id="the-same-is-there-already",
        ),
        pytest.param(
            {"90-default.policy": "my.S * a b allow\n", "old/my.S": "c b ask\na b allow\n"},
            {"30-user.policy": ["my.S * c b ask"]},
            id="what-is-missing",
        ),
        pytest.param(
            {"30-user.policy": "my.S * a b deny\n", "old/my.S": "$anyvm b allow\n"},
            {"30-user.policy": ["my.S * a b deny", "my.S * @anyvm b allow"]},
            id="behind-the-users-own",
        ),
        pytest.param(
            {"33-mine.policy": "my.S * a b deny\n", "old/my.S": "$anyvm b allow\n"},
            {"35-compat.policy": ["my.S * @anyvm b allow", "!compat-4.0"]},
            id="where-the-directory-is-read",
        ),
        pytest.param(
            {"40-mine.policy": "qubes.Filecopy * a b deny\n", "old/qubes.Filecopy": "$anyvm b allow\n"},
            {"30-user.policy": ["qubes.Filecopy * @anyvm b allow"]},
            id="before-what-comes-after",
        ),
        pytest.param(
            {"run/30-user.policy": "", "old/my.S": "a b allow\n"},
            {"35-compat.policy": ["my.S * a b allow", "!compat-4.0"]},
            id="not-into-a-file-that-is-hidden",
        ),
        pytest.param(
            {"30-user.policy": "!dialect delegation-1\n", "old/my.S": "a b allow\n"},
            {"35-compat.policy": ["my.S * a b allow", "!compat-4.0"]},
            id="not-into-the-dialect",
        ),
        pytest.param(
            {
                "50-config-input.policy": "qubes.InputMouse * sys-usb dom0 ask\n",
                "old/qubes.InputMouse": "sys-usb dom0 ask\nsys-net dom0 allow\n",
            },
            {
                "50-config-input.policy": [
                    "qubes.InputMouse * sys-net dom0 allow",
                    "qubes.InputMouse * sys-usb dom0 ask",
                ]
            },
            id="input-is-extended-where-more-is-said",
        ),
        pytest.param(
            {
                "50-config-input.policy": "qubes.InputMouse * sys-usb dom0 deny\n",
                "old/qubes.InputMouse": "sys-usb dom0 ask\n",
            },
            {"50-config-input.policy": ["qubes.InputMouse * sys-usb dom0 ask"]},
            id="input-is-replaced",
        ),
        pytest.param(
            {"old/my.S~": "a b allow\n", "old/.my.S": "x\n", "old/my.S.rpmnew": "x\n"},
            {},
            id="not-read-before",
        ),
    ],
)
def test_the_order_of_all_rules_stays(tree: Tree, want: Mapping[str, list[str]]) -> None:
    assert files(tree) == want


def test_new_rules_come_with_a_note_before_what_there_was() -> None:
    tree = {"35-compat.policy": COMPAT, "30-user.policy": "# mine\r\nx * a b allow", "old/s": "a b ask\n"}
    (text,) = converted(tree).files.values()
    note = f"# qrexec-legacy-convert has taken these rules from\n#   {LEGACY}/s\n"
    assert text.decode() == f"{note}s * a b ask\n\n# mine\r\nx * a b allow"


def test_old_files_get_names_that_no_file_has() -> None:
    tree = {
        "35-compat.policy": COMPAT,
        "old/s": "a b ask\n",
        "old/s.rpmsave": "kept\n",
        "old/+x": "a b ask\n",
    }
    found = converted(tree)
    assert (found.aside, found.left) == ({"s": "s.rpmsave.rpmsave"}, ["+x"])


def test_an_old_file_that_a_rule_of_today_includes_is_not_taken_away() -> None:
    tree = {"35-compat.policy": f"{COMPAT}!include-service s * {LEGACY}/s\n", "old/s": "a b ask\n"}
    with pytest.raises(PolicyError, match="expected a file"):
        converted(tree)


def test_where_no_place_leaves_everything_as_it_is_that_is_said() -> None:
    tree = {
        "35-compat.policy": "!include include/old\n",
        "include/old": COMPAT,
        "30-user.policy": "s * a b deny\n",
        "33-more.policy": "s * a c deny\n",
        "40-more.policy": "s * c a deny\n",
        "old/s": "$anyvm $anyvm allow,user=root\n",
    }
    found = converted(tree)
    assert found.unlike == ["s"]
    assert b"s * @anyvm @anyvm allow user=root\n" in found.files[f"{CONFIGURED}/30-user.policy"]
