"""What holds of every driver that keeps revisions, whatever is done in whatever order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from qubesd.errors import StorageError
from tests.qubesd.storage.rigs import DRIVERS, SIZE, Rig, content, replace, write, written
from tests.qubesd.storage.tools import EXTENT

QUBES = st.sampled_from(("work", "mail"))
DATA = st.binary(min_size=1, max_size=40).map(lambda data: data.rstrip(b"\0") or b"x")


class Known:
    """One origin as it must be: content without the zeros at its end, and what each revision holds."""

    def __init__(self) -> None:
        self.committed = b""
        self.working: bytes | None = None
        self.size = SIZE
        self.revisions: dict[str, bytes] = {}


class Volumes(RuleBasedStateMachine):
    driver = ""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="laws-"))
        self.rig = Rig(self.driver, self.place)
        self.origins = {"work": self.rig.origin("work"), "mail": self.rig.origin("mail", keep=0)}
        self.known = {name: Known() for name in self.origins}
        self.snapshot = self.rig.snapshot("disp", self.origins["work"])

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    @initialize()
    def create(self) -> None:
        for qube, volume in self.origins.items():
            self.rig.pool.create(volume)
            self.learn(qube, b"")

    @rule(qube=QUBES)
    def start(self, qube: str) -> None:
        before = self.known[qube].committed
        self.rig.pool.start(self.origins[qube])
        if self.known[qube].working is None:
            self.known[qube].working = before
        self.learn(qube, before)

    @rule(qube=QUBES, data=DATA)
    def write(self, qube: str, data: bytes) -> None:
        known = self.known[qube]
        if known.working is not None:
            write(self.rig.pool, self.origins[qube], data)
            known.working = (data + known.working[len(data) :]).rstrip(b"\0")

    @rule(qube=QUBES)
    def stop(self, qube: str) -> None:
        known = self.known[qube]
        before = known.committed
        self.rig.pool.stop(self.origins[qube])
        if known.working is not None:
            known.committed, known.working = known.working, None
        self.learn(qube, before)

    @rule(qube=QUBES, data=DATA, size=st.sampled_from((EXTENT, SIZE, 2 * SIZE)))
    def replace(self, qube: str, data: bytes, size: int) -> None:
        known = self.known[qube]
        before = known.committed
        beside = self.driver in ("file-reflink", "callback") and self.origins[qube].revisions_to_keep > 0
        if known.working is not None and not beside:
            with pytest.raises(StorageError, match="not committed"):
                self.rig.pool.begin_import(self.origins[qube], size)
            return
        replace(self.rig.pool, self.origins[qube], data, size)
        known.committed = data
        if known.working is None:
            known.size = size
        self.learn(qube, before)

    @rule(qube=QUBES, data=DATA, told=st.booleans())
    def replace_in_vain(self, qube: str, data: bytes, told: bool) -> None:
        known = self.known[qube]
        if known.working is not None:
            return
        with self.rig.pool.begin_import(self.origins[qube], SIZE).open("r+b") as file:
            file.write(data)
        if told:
            self.rig.pool.end_import(self.origins[qube], good=False)
        else:
            self.rig.again()
        self.learn(qube, known.committed)

    @rule(target_qube=QUBES)
    def clone(self, target_qube: str) -> None:
        known, target = self.known[target_qube], target_qube
        source = "mail" if target == "work" else "work"
        if known.working is not None:
            return
        before = known.committed
        with self.rig.pool.export(self.origins[source]) as path:
            sizes = {path.stat().st_size, self.known[source].size}
        self.rig.pool.clone(self.origins[target], self.rig.pool, self.origins[source])
        known.committed = self.known[source].committed
        known.size = self.rig.pool.size(self.origins[target])
        assert known.size in sizes
        self.learn(target, before)

    @rule()
    def keep(self) -> None:
        before = self.known["work"].committed
        revision = self.rig.pool.snapshot(self.origins["work"])
        self.learn("work", before)
        assert self.known["work"].revisions[revision] == before

    @precondition(lambda self: self.known["work"].revisions)
    @rule(data=st.data())
    def revert(self, data: st.DataObject) -> None:
        known = self.known["work"]
        revision = data.draw(st.sampled_from(sorted(known.revisions)))
        before, chosen = known.committed, known.revisions[revision]
        if known.working is not None:
            with pytest.raises(StorageError, match="not committed"):
                self.rig.pool.revert(self.origins["work"], revision)
            return
        if self.driver == "zfs" and self.in_use():
            return  # a volume that began at a revision which would go holds it
        sizes = {found.id: found.size for found in self.rig.pool.revisions(self.origins["work"])}
        self.rig.pool.revert(self.origins["work"], revision)
        known.committed = chosen
        known.size = self.rig.pool.size(self.origins["work"])
        assert known.size == sizes[revision]
        self.learn("work", before)

    @rule(qube=QUBES, more=st.integers(1, 3))
    def resize(self, qube: str, more: int) -> None:
        known = self.known[qube]
        known.size += more * EXTENT
        self.rig.pool.resize(self.origins[qube], known.size)
        self.learn(qube, known.committed)

    @rule()
    def restart(self) -> None:
        self.rig.again()

    @rule(data=DATA)
    def use_the_snapshot(self, data: bytes) -> None:
        """Left running, so that what its source does later meets it."""
        self.rig.pool.start(self.snapshot)
        assert written(self.rig.pool, self.snapshot) == self.known["work"].committed
        assert not self.rig.pool.is_outdated(self.snapshot)
        write(self.rig.pool, self.snapshot, data)

    @rule()
    def drop_the_snapshot(self) -> None:
        self.rig.pool.stop(self.snapshot)

    @invariant()
    def every_origin_is_what_it_must_be(self) -> None:
        for qube, known in self.known.items():
            volume = self.origins[qube]
            assert content(self.rig.pool, volume) == known.committed, qube
            assert self.rig.pool.is_dirty(volume) is (known.working is not None), qube
            assert self.rig.pool.size(volume) == known.size, qube
            if known.working is not None:
                assert written(self.rig.pool, volume) == known.working, qube
            found = [revision.id for revision in self.rig.pool.revisions(volume)]
            assert found == sorted(known.revisions, key=found.index), qube
            assert len(found) <= volume.revisions_to_keep, qube

    def in_use(self) -> bool:
        path = self.rig.pool.path(self.snapshot)
        return path is not None and Path(path).exists()

    def learn(self, qube: str, before: bytes) -> None:
        """What the revisions that are new hold; those that are gone may be gone."""
        known = self.known[qube]
        content(self.rig.pool, self.origins[qube])  # a pool of callback says nothing before its first use
        found = {revision.id for revision in self.rig.pool.revisions(self.origins[qube])}
        known.revisions = {
            id: known.revisions.get(id, known.committed if id.startswith("qubes:after-") else before)
            for id in found
        }


@pytest.mark.parametrize("driver", DRIVERS)
def test_whatever_is_done_every_origin_is_what_it_must_be(driver: str) -> None:
    class Here(Volumes):
        pass

    Here.driver = driver
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
