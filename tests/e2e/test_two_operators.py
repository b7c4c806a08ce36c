"""Two operators with overlapping qubes, at the same time, on a real hypervisor.

Each has what policy grants and no more, and neither notices more of the other than what they share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.client import call, events
from broker.wire import Failure, WireEvent
from tests.broker.rig import Daemon, answer, serving

POLICY = "\n".join(
    f"""\
admin.vm.List * {operator} @adminvm allow target=dom0
admin.Events * {operator} @adminvm allow target=dom0
admin.vm.Create.StandaloneVM * {operator} @adminvm allow target=dom0
admin.vm.tag.Set +of-{operator} {operator} @tag:created-by-{operator} allow target=dom0
* * {operator} @tag:of-{operator} allow target=dom0
* * {operator} @tag:created-by-{operator} allow target=dom0
* * {operator} @tag:shared allow target=dom0
"""
    for operator in ("ann", "ben")
)


@pytest.fixture(params=["stock", "strict"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    with serving(tmp_path, POLICY, f'visibility = "{request.param}"\n') as daemon:
        tags = {"ann-web": "of-ann", "ben-web": "of-ben", "both": "shared"}
        daemon.create("ann", "ben", *tags, tags=tags)
        yield daemon


def names(daemon: Daemon, operator: str) -> list[str]:
    rows = call(daemon.channel(operator), "admin.vm.List").decode("ascii")
    return [row.split()[0] for row in rows.splitlines()]


def test_each_sees_and_changes_only_what_policy_grants(daemon: Daemon) -> None:
    assert names(daemon, "ann") == ["dom0", "ann-web", "both"]
    assert names(daemon, "ben") == ["dom0", "ben-web", "both"]
    ann, ben = daemon.channel("ann"), daemon.channel("ben")
    assert call(ann, "admin.vm.Start", "both") == b""
    assert call(ben, "admin.vm.CurrentState", "both").endswith(b"power_state=Running")
    assert call(ben, "admin.vm.Kill", "both") == b""
    assert call(ann, "admin.vm.CurrentState", "both").endswith(b"power_state=Halted")
    for operator, other in ((ann, "ben-web"), (ben, "ann-web")):
        for service in ("admin.vm.Start", "admin.vm.CurrentState", "admin.vm.Remove", "admin.vm.List"):
            reply = answer(operator, service, other)
            assert isinstance(reply, Failure)
            assert reply.refused
    assert call(daemon.socket, "admin.vm.CurrentState", "ben-web").endswith(b"power_state=Halted")


def test_both_at_once(daemon: Daemon) -> None:
    """Each makes, starts, stops and removes qubes; nothing is lost, and nobody is in the other's way."""

    def work(operator: str) -> Callable[[], None]:
        path = daemon.channel(operator)

        def run() -> None:
            for number in range(6):
                name = f"{operator}-{number}"
                call(path, "admin.vm.Create.StandaloneVM", payload=f"name={name} label=red".encode("ascii"))
                call(path, "admin.vm.property.Set", name, "memory", b"500")
                call(path, "admin.vm.Start", name)
                call(path, "admin.vm.feature.Set", "both", f"{operator}-{number}", b"1")
                call(path, "admin.vm.Kill", name)
                if number % 2:
                    call(path, "admin.vm.Remove", name)

        return run

    together(work("ann"), work("ben"))
    for operator, other in (("ann", "ben"), ("ben", "ann")):
        seen = names(daemon, operator)
        assert [name for name in seen if name.startswith(f"{operator}-")] == [
            f"{operator}-{number}" for number in (0, 2, 4)
        ] + [f"{operator}-web"]
        assert not [name for name in seen if name.startswith(other)]
    assert set(call(daemon.socket, "admin.vm.feature.List", "both").decode("ascii").split()) >= {
        f"{operator}-{number}" for operator in ("ann", "ben") for number in range(6)
    }


def together(*functions: Callable[[], None]) -> None:
    """Run all at once; what goes wrong in one of them goes wrong here."""
    problems: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems


def test_each_hears_of_what_it_may_see(daemon: Daemon) -> None:
    heard: dict[str, list[WireEvent]] = {}
    ready = threading.Barrier(3)

    def listen(operator: str) -> Callable[[], None]:
        def run() -> None:
            stream = events(daemon.channel(operator), timeout=60)
            assert next(stream).name == "connection-established"
            ready.wait(60)
            heard[operator] = []
            for event in stream:
                heard[operator].append(event)
                if event.name == "domain-tag-add:end":
                    return

        return run

    def act() -> None:
        ready.wait(60)
        call(daemon.channel("ann"), "admin.vm.Start", "ann-web")
        call(daemon.channel("ben"), "admin.vm.Start", "ben-web")
        call(daemon.channel("ann"), "admin.vm.property.Set", "both", "label", b"blue")
        call(daemon.channel("ann"), "admin.vm.tag.Set", "both", "end")

    together(listen("ann"), listen("ben"), act)
    for operator, other in (("ann", "ben"), ("ben", "ann")):
        subjects = {event.subject for event in heard[operator]}
        assert subjects == {f"{operator}-web", "both"}
        assert "domain-start" in {event.name for event in heard[operator]}
        assert "property-set:label" in {event.name for event in heard[operator]}
        assert not any(f"{other}-web" in event.keys.values() for event in heard[operator])


def test_a_qube_that_comes_into_view_is_added_for_its_listener(tmp_path: Path) -> None:
    """Under strict visibility only: dom0 hands ann's qube to ben and takes it back."""
    with serving(tmp_path, POLICY, 'visibility = "strict"\n') as daemon:
        daemon.create("ann", "ben", "web", tags={"web": "of-ann"})
        stream = events(daemon.channel("ben"), timeout=60)
        assert next(stream).name == "connection-established"
        call(daemon.socket, "admin.vm.feature.Set", "web", "unseen", b"1")
        call(daemon.socket, "admin.vm.tag.Set", "web", "of-ben")
        call(daemon.socket, "admin.vm.feature.Set", "web", "seen", b"1")
        call(daemon.socket, "admin.vm.tag.Remove", "web", "of-ben")
        call(daemon.socket, "admin.vm.feature.Set", "web", "unseen", b"2")
        call(daemon.channel("ben"), "admin.vm.Create.StandaloneVM", payload=b"name=end label=red")
        told = []
        for event in stream:
            told.append((event.subject, event.name, event.keys.get("vm")))
            if event.keys.get("vm") == "end":
                break
        assert told == [
            ("", "domain-add", "web"),
            ("web", "domain-tag-add:of-ben", None),
            ("web", "domain-feature-pre-set:seen", None),
            ("web", "domain-feature-set:seen", None),
            ("", "domain-delete", "web"),
            ("", "domain-add", "end"),
        ]
