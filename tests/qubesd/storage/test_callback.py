"""Pools of the driver callback: the administrator's commands, run by a real shell, around another driver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qubesd.errors import StorageError
from qubesd.model.state import VolumeConfig
from qubesd.storage import drivers
from qubesd.storage.callback import CallbackPool, load
from tests.qubesd.storage.rigs import SIZE, content, cycle, replace

VOLUME = VolumeConfig("private", "disk", "appvms/work/private", 1, rw=True, save_on_stop=True, size=SIZE)
HOSTILE = '$(touch "$0.here"); `touch here` \' "'


class Machine:
    """A file of commands and a log that they write to."""

    def __init__(self, place: Path) -> None:
        self.log = place / "log"
        self.directory = place / "pool"
        self.environment = drivers.Environment(place / "qubes_callback.json")

    def says(self, **entry: object) -> None:
        options = {"dir_path": str(self.directory), "setup_check": False}
        whole = {"bdriver": "file-reflink", "bdriver_args": options, **entry}
        self.environment.callback_file.write_text(json.dumps({"disk-1": whole}))

    def logs(self, words: str) -> str:
        return f"printf '%s\\n' {words} >> {self.log}"

    def add(self) -> CallbackPool:
        _, pool = drivers.configure("disk", "callback", {"conf_id": "disk-1"}, self.environment)
        assert isinstance(pool, CallbackPool)
        pool.open()
        return pool

    def restart(self, pool: CallbackPool) -> CallbackPool:
        again = drivers.make(pool.config, self.environment)
        assert isinstance(again, CallbackPool)
        again.open()
        again.tidy()
        return again

    def said(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_every_verb_tells_its_events_in_order(machine: Machine) -> None:
    # Arguments are: pool, driver, event, conf_id, JSON, name, vid, source, extra.
    machine.says(cmd=machine.logs('"$3 $9"') + "; :")
    pool = machine.add()
    assert machine.said() == ["pre_setup "]
    pool.create(VOLUME)
    assert machine.said() == ["pre_sinit ", "pre_volume_create ", "post_volume_create "]
    cycle(pool, VOLUME, b"one")
    assert machine.said() == ["pre_volume_start ", "post_volume_start ", "post_volume_stop "]
    pool.resize(VOLUME, 2 * SIZE)
    assert machine.said() == [f"pre_volume_resize {2 * SIZE}"]
    replace(pool, VOLUME, b"two", SIZE)
    assert machine.said() == [f"pre_volume_import_data {SIZE}", "post_volume_import_data_end True"]
    pool.begin_import(VOLUME, SIZE)
    pool.end_import(VOLUME, good=False)
    assert machine.said()[-1] == "post_volume_import_data_end False"
    with pool.export(VOLUME) as path:
        pass
    assert machine.said() == ["pre_volume_export ", f"post_volume_export_end {path}"]
    copy = VolumeConfig("private", "disk", "appvms/copy/private", 1, rw=True, save_on_stop=True, size=SIZE)
    pool.create(copy)
    machine.said()
    pool.clone(copy, pool, VOLUME)
    told = machine.said()
    assert told[0] == f"pre_volume_import {VOLUME.vid}"
    assert told[-1] == f"post_volume_import {VOLUME.vid}"
    assert content(pool, copy) == b"two"
    machine.said()
    pool.remove(copy)
    assert machine.said() == ["post_volume_remove "]
    pool.close()
    assert machine.said() == ["post_destroy "]


def test_a_general_command_is_told_everything_and_no_word_of_it_is_read_by_the_shell(
    machine: Machine, tmp_path: Path
) -> None:
    machine.says(cmd=machine.logs('"$#" "$@"') + "; :", note=HOSTILE)
    pool = machine.add()
    pool.create(VOLUME)
    machine.said()
    pool.start(VOLUME)
    told = machine.said()
    assert told[:5] == ["8", "disk", "file-reflink", "pre_volume_start", "disk-1"]
    assert json.loads(told[5])["note"] == HOSTILE
    assert told[6:9] == ["private", "appvms/work/private", ""]
    assert not list(tmp_path.rglob("*here*"))


def test_a_command_of_one_event_gets_no_arguments_and_a_dash_is_none(machine: Machine) -> None:
    machine.says(
        cmd=machine.logs('"$3"') + "; :", pre_volume_create=machine.logs('"own $#"'), post_volume_create="-"
    )
    pool = machine.add()
    pool.create(VOLUME)
    assert machine.said() == ["pre_setup", "pre_sinit", "own 0"]


def test_a_command_that_fails_fails_the_verb_before_anything_was_done(machine: Machine) -> None:
    machine.says(pre_volume_create="echo the disk is not there >&2; exit 3")
    pool = machine.add()
    with pytest.raises(StorageError, match="the disk is not there"):
        pool.create(VOLUME)
    assert not list(machine.directory.rglob("private*"))


def test_until_its_first_use_after_a_start_nothing_below_is_touched(machine: Machine) -> None:
    machine.says(pre_sinit=machine.logs("mounted"))
    pool = machine.add()
    pool.create(VOLUME)
    pool.start(VOLUME)
    machine.said()
    pool = machine.restart(pool)
    assert not pool.is_dirty(VOLUME)
    assert pool.is_outdated(VOLUME) is False
    assert (pool.usage(VOLUME), pool.size(VOLUME)) == (0, SIZE)
    assert (pool.revisions(VOLUME), pool.kernels()) == ([], [])
    assert pool.space().size is None
    pool.stop(VOLUME)
    assert machine.said() == []
    pool.start(VOLUME)
    assert machine.said() == ["mounted"]
    assert pool.is_dirty(VOLUME)
    assert pool.space().size
    pool.stop(VOLUME)
    assert machine.said() == []


def test_a_line_of_signal_setup_opens_the_wrapped_pool_again(machine: Machine) -> None:
    machine.says(pre_volume_create=f"rm -r {machine.directory}; echo SIGNAL_setup", signal_back=True)
    pool = machine.add()
    pool.create(VOLUME)
    assert content(pool, VOLUME) == b""
    assert (machine.directory / "appvms").is_dir()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no object 'disk-1'"),
        ('{"disk-2": {}}', "has no object 'disk-1'"),
        ('{"disk-1": {}}', "needs a text 'bdriver'"),
        ('{"disk-1": {"bdriver": "file", "bdriver_args": []}}', "an object 'bdriver_args'"),
        ('{"disk-1": {"bdriver": "file", "pre_setup": 3}}', "pre_setup must be a command"),
        ('{"disk-1": {"bdriver": "nvme"}}', "no driver 'nvme'"),
        (
            '{"disk-1": {"bdriver": "callback", "bdriver_args": {"conf_id": "disk-1"}}}',
            "no driver 'callback'",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(machine: Machine, text: str, complaint: str) -> None:
    machine.environment.callback_file.write_text(text)
    with pytest.raises(StorageError, match=complaint) as told:
        drivers.configure("disk", "callback", {"conf_id": "disk-1"}, machine.environment)
    assert str(machine.environment.callback_file) in str(told.value)


def test_no_file_at_all(machine: Machine) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        load(machine.environment.callback_file, "disk-1")
