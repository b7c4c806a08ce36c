"""Every way in which editors and tools change a file, while its policy is followed.

The edited policy has a rule at its head and one at its tail, both marked with its version, and the file after
it allows what it does not speak of. So a policy made of an emptied, cut or mixed state shows.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from policy_engine import Allowed, Policy, QubeFacts, Request, World, decide
from tests.broker.files_rig import Place, follow, wait_until

WORLD = World.of([QubeFacts("dom0", None, "AdminVM"), QubeFacts("work", None, "AppVM")])

SLOW = 0.06
"""Seconds between the pieces of a slow writer: longer than a pause that ends a burst."""

Edit = Callable[[Path, str], None]
"""Gives a file of the policy, ``10.policy``, this text."""


def version(number: int) -> str:
    """The text of one version, longer than what writers buffer."""
    middle = "".join(f"middle{line} * @anyvm dom0 deny\n" for line in range(1_000))
    marked = f"* @anyvm dom0 allow user=v{number}\n"
    return f"head {marked}{middle}tail {marked}"


def marks(policy: object) -> tuple[str | None, ...]:
    """What a policy says to a call of the head and of the tail; ``None`` where neither is allowed."""
    return tuple(_mark(policy, service) for service in ("head", "tail"))


def _mark(policy: object, service: str) -> str | None:
    if not isinstance(policy, Policy):
        return None
    decision = decide(policy, Request(service, "+", "work", "dom0"), WORLD)
    return decision.user if isinstance(decision, Allowed) else None


async def becomes(place: Place, number: int) -> None:
    wanted = (f"v{number}", f"v{number}")
    await wait_until(lambda: marks(place.reloader.policies.now) == wanted, str(wanted))


def write_slowly(path: Path, text: str) -> None:
    """Truncate it, think, and write it in pieces."""
    with path.open("wb", buffering=0) as file:
        data = text.encode()
        for start in range(0, len(data), len(data) // 3):
            time.sleep(SLOW)
            file.write(data[start : start + len(data) // 3])
        time.sleep(SLOW)


def vim(path: Path, text: str) -> None:
    """``backup=auto``: a file comes and goes to try the directory, and the old file becomes the backup."""
    with path.with_name(".10.policy.swp").open("wb", buffering=0) as swap:
        swap.write(b"b0VIM")
        path.with_name("4913").touch()
        path.with_name("4913").unlink()
        path.rename(path.with_name("10.policy~"))
        path.write_text(text)
        path.with_name("10.policy~").unlink()
    path.with_name(".10.policy.swp").unlink()


def vim_that_keeps_the_inode(path: Path, text: str) -> None:
    """``backupcopy=yes``, and a swap file that is open for writing all along."""
    with path.with_name(".10.policy.swp").open("wb", buffering=0) as swap:
        swap.write(b"b0VIM")
        shutil.copy2(path, path.with_name("10.policy~"))
        write_slowly(path, text)
        path.with_name("10.policy~").unlink()
    path.with_name(".10.policy.swp").unlink()


def emacs(path: Path, text: str) -> None:
    """A lock that is a dangling link, what is saved by itself, a backup by renaming."""
    lock, saved, backup = (path.with_name(name) for name in (".#10.policy", "#10.policy#", "10.policy~"))
    lock.symlink_to("author@host.1:2")
    saved.write_text(text[: len(text) // 2])
    backup.unlink(missing_ok=True)
    path.rename(backup)
    path.write_text(text)
    saved.unlink()
    lock.unlink()


def in_pieces(path: Path, text: str) -> None:
    write_slowly(path, text)


def shell_redirection(path: Path, text: str) -> None:
    source = path.parent.parent / "source"
    source.write_text(text)
    script = f'(sleep {SLOW}; cat "$1") > "$2"'
    subprocess.run(["sh", "-c", script, "sh", source, path], check=True)


def copied_over(path: Path, text: str) -> None:
    source = path.parent.parent / "source"
    source.write_text(text)
    subprocess.run(["cp", source, path], check=True)


def sed_in_place(path: Path, text: str) -> None:
    last = text.rpartition("user=")[2].strip()
    subprocess.run(["sed", "-i", f"s/user=v[0-9]*/user={last}/", path], check=True)


def renamed_over(path: Path, text: str) -> None:
    write_slowly(path.with_name(".10.policy.new"), text)
    path.with_name(".10.policy.new").rename(path)


def through_a_hard_link(path: Path, text: str) -> None:
    other = path.parent.parent / "other"
    other.unlink(missing_ok=True)
    os.link(path, other)
    write_slowly(other, text)


def through_a_link_that_is_swapped(path: Path, text: str) -> None:
    target = path.parent.parent / f"version-{len(os.listdir(path.parent.parent))}"
    target.write_text(text)
    path.with_name(".link").symlink_to(target)
    path.with_name(".link").rename(path)


def through_a_link_to_a_file_in_place(path: Path, text: str) -> None:
    if not path.is_symlink():
        path.rename(path.parent.parent / "target")
        path.symlink_to("../target")
    write_slowly(path, text)


def changed_in_owner_mode_and_time(path: Path, text: str) -> None:
    for _ in range(3):
        path.chmod(0o640)
        os.chown(path, os.geteuid(), os.getegid())
        path.touch()
        time.sleep(SLOW)
    renamed_over(path, text)


def removed_and_made_again(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def shadowed_by_a_new_file(path: Path, text: str) -> None:
    """A file that was not there before has no watch of its own when its writer begins, who makes it, thinks,
    and writes."""
    shadow = path.parent.parent / "run" / "10.policy"
    if shadow.exists():
        in_pieces(shadow, text)
        return
    with shadow.open("wb", buffering=0) as file:
        time.sleep(SLOW)
        half = len(text) // 2
        file.write(text[:half].encode())
        time.sleep(SLOW)
        file.write(text[half:].encode())


def shadowed_by_a_link(path: Path, text: str) -> None:
    """One that is made as it is, to be read at once: nobody will close it."""
    target = path.parent.parent / f"version-{len(os.listdir(path.parent.parent))}"
    target.write_text(text)
    shadow = path.parent.parent / "run" / "10.policy"
    if shadow.exists():
        shadow.with_name(".new").symlink_to(target)
        shadow.with_name(".new").rename(shadow)
    else:
        os.link(target, shadow)


def included_directory_that_appears(path: Path, text: str) -> None:
    included = path.with_name("include")
    if included.exists():
        in_pieces(included / "a.policy", text)
        return
    ready = path.with_name("include.new")
    ready.mkdir()
    (ready / "a.policy").write_text(text)
    ready.rename(included)
    path.with_name(".next").write_text("!include-dir include\n")
    path.with_name(".next").rename(path)


def directory_replaced(path: Path, text: str) -> None:
    ready, last = path.parent.with_name("next"), path.parent.with_name("last")
    shutil.rmtree(last, ignore_errors=True)
    shutil.copytree(path.parent, ready)
    (ready / "10.policy").write_text(text)
    path.parent.rename(last)
    ready.rename(path.parent)


WHOLE = [
    vim_that_keeps_the_inode,
    in_pieces,
    shell_redirection,
    copied_over,
    sed_in_place,
    renamed_over,
    through_a_hard_link,
    through_a_link_that_is_swapped,
    changed_in_owner_mode_and_time,
    shadowed_by_a_new_file,
    shadowed_by_a_link,
    included_directory_that_appears,
]
WITH_A_GAP = [
    vim,
    emacs,
    removed_and_made_again,
    directory_replaced,
    through_a_link_to_a_file_in_place,
]
"""The file is not there for a moment, as it would not be after its removal. That may be seen, and nothing
else."""


@pytest.mark.parametrize(
    ("edit", "gap"),
    [
        *(pytest.param(edit, False, id=edit.__name__) for edit in WHOLE),
        *(pytest.param(edit, True, id=edit.__name__) for edit in WITH_A_GAP),
    ],
)
def test_no_policy_is_made_of_half_an_edit(edit: Edit, gap: bool, tmp_path: Path) -> None:
    def before(place: Place) -> None:
        (place.configured / "10.policy").write_text(version(1))
        (place.configured / "90.policy").write_text("* * @anyvm dom0 allow user=rest\n")

    seen: list[tuple[str | None, ...]] = []

    async def story(place: Place) -> None:
        # Every policy that decides anything comes by here.
        place.reloader.swapped = lambda: seen.append(marks(place.reloader.policies.now))
        for number in (2, 3):
            await asyncio.to_thread(edit, place.configured / "10.policy", version(number))
            await becomes(place, number)

    follow(tmp_path, before, story)
    gaps = {("rest", "rest"), (None, None)} if gap else set()
    assert [marked for marked in seen if marked not in gaps] == [("v2", "v2"), ("v3", "v3")]


def test_a_file_that_is_never_closed_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    def before(place: Place) -> None:
        (place.configured / "10.policy").write_text(version(1))

    async def story(place: Place) -> None:
        with (place.configured / "10.policy").open("wb", buffering=0) as file:
            file.write(version(2).encode())
            await becomes(place, 2)
            file.seek(0)
            file.write(version(3).encode())
            await becomes(place, 3)

    follow(tmp_path, before, story)
