"""What extensions can do to a core, and what a bad one cannot."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ClassVar

import pytest

from qubesd.core.device_events import DeviceAttach
from qubesd.core.extending import Extensions
from qubesd.core.power_events import DomainPreStart, DomainStart, DomainStopped
from qubesd.errors import PermissionDenied, QubesError
from qubesd.events import (
    FeaturePreSet,
    FeatureSet,
    Keys,
    PropertyPreSet,
    PropertySet,
    QubeAdded,
    QubeRemoved,
    Read,
    TagAdded,
    WireEvent,
)
from qubesd.extension import Change, Extension, on
from qubesd.model.state import Qube
from qubesd.model.view import View
from tests.qubesd.house import House, visit

SET, TAG, START = "admin.vm.property.Set", "admin.vm.tag.Set", "admin.vm.Start"
CREATE = "admin.vm.Create.StandaloneVM"


def refuse(view: View, event: WireEvent) -> None:
    raise PermissionDenied("not today")


def break_off(view: object, event: WireEvent) -> None:
    raise ZeroDivisionError("of its own")


def leave(view: object, event: WireEvent) -> None:
    sys.exit("of its own")


def shrug(view: object, event: WireEvent) -> Any:
    return False


async def wait(view: object, event: WireEvent) -> None:
    """What nobody would wait for."""


WAITS: Any = wait


def hang(view: object, event: WireEvent) -> None:
    while True:
        try:
            while True:
                pass
        except Exception:
            continue


def tag_it(change: Change, event: PropertySet) -> None:
    assert event.subject is not None
    change.add_tag(event.subject, f"has-{event.name}")
    change.set_feature(event.subject, "property", event.newvalue)


def half_way(change: Change, event: PropertySet) -> None:
    assert event.subject is not None
    change.add_tag(event.subject, "half")
    change.set_feature(event.subject, "half", "1")
    change.set_property(event.subject, "memory", -1)


def follow(change: Change, event: FeatureSet) -> None:
    change.set_feature(event.subject, f"{event.feature}x", "1")


def stay(tmp_path: Path, extensions: Mapping[str, Extension], guest: Any, limit: float = 2.0) -> None:
    async def story(house: House) -> None:
        house.core.extensions = Extensions(house.core, limit)
        house.core.extensions.use(extensions)
        await guest(house)

    visit(tmp_path, story, extensions={})


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        pytest.param(PropertyPreSet, (SET, "work", "label", "blue"), id="property"),
        pytest.param(PropertyPreSet, ("admin.property.Set", "dom0", "stats_interval", "4"), id="global"),
        pytest.param(FeaturePreSet, ("admin.vm.feature.Set", "work", "a", "1"), id="feature"),
        pytest.param(
            FeaturePreSet, (SET, "work", "provides_network", "True"), id="feature-that-a-property-brings"
        ),
        pytest.param(FeaturePreSet, ("admin.property.Set", "dom0", "clockvm", "work"), id="of-another-qube"),
        pytest.param(TagAdded, (TAG, "work", "a"), id="tag"),
        pytest.param(QubeAdded, (CREATE, "dom0", "", "name=new label=red"), id="new-qube"),
        pytest.param(DomainPreStart, (START, "work"), id="start"),
    ],
)
@pytest.mark.parametrize(
    ("veto", "error"),
    [
        pytest.param(refuse, "PermissionDenied", id="refuses"),
        pytest.param(break_off, "QubesException", id="fails"),
        pytest.param(leave, "QubesException", id="would-end-the-daemon"),
        pytest.param(shrug, "QubesException", id="returns-something"),
    ],
)
def test_what_is_vetoed_does_not_happen(
    kind: type[WireEvent], call: tuple[str, ...], veto: Any, error: str, tmp_path: Path
) -> None:
    async def guest(house: House) -> None:
        before = house.core.system
        assert await house.call(*call) == error
        assert house.core.system is before
        assert [name for name in house.names() if "failed" not in name] == []
        assert house.core.running("work").state == "Halted"

    stay(tmp_path, {"veto": Extension(vetoes=(on(kind, veto),))}, guest)


def test_the_veto_sees_what_would_be(tmp_path: Path) -> None:
    seen: list[Qube] = []

    def look(view: View, event: QubeAdded) -> None:
        seen.append(view.system.qubes[event.qube])

    async def guest(house: House) -> None:
        await house.do(CREATE, payload="name=new label=red")
        assert seen == [house.qube("new")]
        assert "created-by-dom0" in seen[0].tags

    stay(tmp_path, {"veto": Extension(vetoes=(on(QubeAdded, look),))}, guest)


def test_a_reaction_is_part_of_the_change(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(SET, "work", "label", "blue")
        assert house.names() == [
            "work property-pre-set:label",
            "work property-reset:icon",
            "work domain-tag-add:has-label",
            "work domain-feature-pre-set:property",
            "work domain-feature-set:property",
            "work property-set:label",
        ]
        assert house.qube("work").features["property"] == "blue"
        before = house.core.system
        assert await house.call(SET, "work", "label", "none-such") == "QubesLabelNotFoundError"
        assert house.core.system is before

    stay(tmp_path, {"tags": Extension(reactions=(on(PropertySet, tag_it),))}, guest)


def test_what_is_added_to_a_new_qube_is_told_after_it(tmp_path: Path) -> None:
    def date(change: Change, event: QubeAdded) -> None:
        change.add_tag(event.qube, "new")

    async def guest(house: House) -> None:
        await house.do(CREATE, payload="name=new label=red")
        assert house.names()[:2] == ["domain-add", "new domain-tag-add:new"]

    stay(tmp_path, {"date": Extension(reactions=(on(QubeAdded, date),))}, guest)


@pytest.mark.parametrize("broken", [break_off, leave, half_way])
def test_a_reaction_that_fails_is_taken_back(
    broken: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def guest(house: House) -> None:
        before = house.qube("work")
        await house.do(SET, "work", "label", "blue")
        changed = before.with_property("label", "blue").with_tag("has-label")
        assert house.qube("work") == changed.with_feature("property", "blue")
        assert "extension 'broken' failed in PropertySet" in caplog.text
        assert not [name for name in house.names() if "half" in name]

    extensions = {
        "broken": Extension(reactions=(on(PropertySet, broken),)),
        "tags": Extension(reactions=(on(PropertySet, tag_it),)),
    }
    stay(tmp_path, extensions, guest)


def setting(name: str, value: Any) -> Extension:
    def put(change: Change, event: FeatureSet) -> None:
        change.set_property(event.subject, name, value)

    return Extension(reactions=(on(FeatureSet, put),))


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        pytest.param("debug", True, True, id="flag"),
        pytest.param("debug", "False", False, id="text-of-a-flag"),
        pytest.param("memory", "450", 450, id="text-of-a-number"),
        pytest.param("vcpus", 3, 3, id="number"),
        pytest.param("netvm", None, None, id="none"),
        pytest.param("netvm", "sys-net", "sys-net", id="qube"),
        pytest.param("ip", IPv4Address("10.9.0.7"), "10.9.0.7", id="address"),
        pytest.param("mac", "00:16:3E:5E:6C:09", "00:16:3e:5e:6c:09", id="other-letters"),
    ],
)
def test_a_property_gets_what_the_api_would_make_of_it(
    name: str, value: Any, kept: Any, tmp_path: Path
) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.feature.Set", "work", "a", "1")
        found = house.qube("work").properties[name]
        assert (found, type(found)) == (kept, type(kept))

    stay(tmp_path, {"sets": setting(name, value)}, guest)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("kernelopts", "a\0b", id="nul"),
        pytest.param("kernelopts", "a\x01b", id="what-xml-cannot-hold"),
        pytest.param("kernelopts", "\ud800", id="no-text"),
        pytest.param("ip", "nowhere", id="no-address"),
        pytest.param("debug", 2, id="no-flag"),
        pytest.param("memory", None, id="no-number"),
        pytest.param("memory", 2**80, id="far-too-big"),
        pytest.param("memory", 4.5, id="fraction"),
        pytest.param("netvm", ["sys-net"], id="list"),
        pytest.param("label", None, id="no-label"),
        pytest.param("uuid", "x", id="fixed"),
        pytest.param("none-such", "x", id="unknown"),
    ],
)
def test_a_value_that_the_api_would_not_take_is_the_failure_of_its_extension(
    name: str, value: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def guest(house: House) -> None:
        before = house.qube("work")
        await house.do("admin.vm.feature.Set", "work", "a", "1")
        await house.core.durable()
        assert house.qube("work") == before.with_feature("a", "1")
        assert "extension 'broken' failed in FeatureSet" in caplog.text

    stay(tmp_path, {"broken": setting(name, value)}, guest)


@dataclass(frozen=True, slots=True)
class Dated(WireEvent):
    kind = "keepsake-dated"

    day: Any = "1"
    named: Any = "day"
    asked: Any = ()

    def keys(self) -> Keys:
        return ((self.named, self.day),)

    def reads(self) -> tuple[Read, ...]:
        return (*self.asked,)


@dataclass(frozen=True, slots=True)
class Ahead(Dated):
    ahead = True


@dataclass(frozen=True, slots=True)
class Nameless(Dated):
    kind: ClassVar[Any] = 1


@dataclass(frozen=True, slots=True)
class Empty(Dated):
    kind = ""


def telling(event: Any) -> Any:
    def tell(change: Change, told: PropertySet) -> None:
        change.add_tag("work", "told")
        change.tell(event)

    return Extension(reactions=(on(PropertySet, tell),))


def test_an_event_of_its_own_is_told_with_the_change(tmp_path: Path) -> None:
    event = Dated("work", asked=[Read("admin.vm.feature.Get", "made-on", "work")])
    seen: list[Dated] = []

    def watch(view: View, event: Dated) -> None:
        seen.append(event)

    async def guest(house: House) -> None:
        await house.do(SET, "work", "label", "blue")
        assert ("work", "keepsake-dated", {"day": "1"}) in house.told
        assert seen == [event]

    stay(tmp_path, {"a": telling(event), "b": Extension(watches=(on(Dated, watch),))}, guest)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(Dated("work", 1), id="number"),
        pytest.param(Dated("work", None), id="none"),
        pytest.param(Dated("work", named=""), id="empty-key"),
        pytest.param(Dated("work", asked=["admin.vm.feature.Get"]), id="read-that-is-none"),
        pytest.param(Dated("work", asked=None), id="broken"),
        pytest.param(Dated("none-such"), id="of-no-qube"),
        pytest.param(Ahead("work"), id="ahead"),
        pytest.param(Nameless("work"), id="name-that-is-no-text"),
        pytest.param(Empty("work"), id="no-name"),
        pytest.param("keepsake-dated", id="text"),
        pytest.param(QubeRemoved(None, "work"), id="what-is-not-so"),
        pytest.param(DomainStopped("work"), id="of-a-run"),
        pytest.param(DeviceAttach("work", "block", "work", "sda", "x"), id="of-a-device"),
    ],
)
def test_an_event_that_cannot_be_told_is_the_failure_of_its_extension(
    event: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def guest(house: House) -> None:
        await house.do(START, "work")
        house.told.clear()
        before = house.qube("work")
        await house.do(SET, "work", "label", "blue")
        assert house.qube("work") == before.with_property("label", "blue")
        assert house.names()[-1] == "work property-set:label"
        assert (house.core.databases.page("work")) is not None
        assert "extension 'broken' failed in PropertySet" in caplog.text

    stay(tmp_path, {"broken": telling(event)}, guest)


def test_reactions_without_end_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.feature.Set", "work", "a", "1")
        assert sorted(house.qube("work").features) == ["a" + "x" * number for number in range(9)]
        assert "without end" in caplog.text

    stay(tmp_path, {"endless": Extension(reactions=(on(FeatureSet, follow),))}, guest)


@pytest.mark.parametrize("broken", [refuse, break_off, leave])
def test_a_watch_that_fails_is_named_and_hurts_nobody(
    broken: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def note(view: View, event: DomainStart) -> None:
        seen.append(event.subject)

    async def guest(house: House) -> None:
        await house.do(START, "work")
        assert seen == ["work"]
        assert house.names()[-1] == "work domain-start"
        assert "extension 'broken' failed in DomainStart" in caplog.text

    extensions = {
        "broken": Extension(watches=(on(DomainStart, broken),)),
        "notes": Extension(watches=(on(DomainStart, note),)),
    }
    stay(tmp_path, extensions, guest)


def test_who_hangs_is_broken_off_and_out_of_service(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    extension = Extension(
        vetoes=(on(FeaturePreSet, refuse),),
        reactions=(on(PropertySet, hang),),
        watches=(on(TagAdded, break_off),),
    )

    async def guest(house: House) -> None:
        await house.do(SET, "work", "label", "blue")
        assert "extension 'slow' is out of service" in caplog.text
        caplog.clear()
        await house.do(SET, "work", "label", "red")
        await house.do(TAG, "work", "a")
        assert caplog.text == ""
        with pytest.raises(QubesError, match="out of service"):
            await house.answer("admin.vm.feature.Set", "work", "a", "1")

    stay(tmp_path, {"slow": extension}, guest, limit=0.5)


def test_who_is_slow_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def look_for_long(view: View, event: TagAdded) -> None:
        time.sleep(0.3 if event.tag.startswith("slow") else 0)

    async def guest(house: House) -> None:
        await house.do(TAG, "work", "quick")
        assert "seconds" not in caplog.text
        for tag in ("slow", "slower"):
            await house.do(TAG, "work", tag)
        assert caplog.text.count("extension 'a' took 0.3 seconds") == 1

    watch = on(TagAdded, look_for_long)
    stay(tmp_path, {"a": Extension(watches=(watch,)), "b": Extension(watches=(on(TagAdded, print),))}, guest)


def test_a_reaction_that_hangs_in_another_is_the_one_that_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def guest(house: House) -> None:
        await house.do(SET, "work", "label", "blue")
        assert "extension 'slow' is out of service" in caplog.text
        assert "extension 'slow' took 0.5 seconds" in caplog.text
        assert not re.search(r"extension 'tags' (?:failed|took 0\.[5-9])", caplog.text)
        assert house.qube("work").features["property"] == "blue"

    extensions = {
        "slow": Extension(reactions=(on(FeatureSet, hang),)),
        "tags": Extension(reactions=(on(PropertySet, tag_it),)),
    }
    stay(tmp_path, extensions, guest, limit=0.5)


@pytest.mark.parametrize(
    ("handlers", "message"),
    [
        pytest.param({"vetoes": (on(DomainStart, refuse),)}, "it has happened", id="veto-of-what-was"),
        pytest.param({"vetoes": (on(WireEvent, refuse),)}, "it has happened", id="veto-of-anything"),
        pytest.param({"reactions": (on(PropertyPreSet, break_off),)}, "no change tells it", id="ahead"),
        pytest.param({"reactions": (on(DomainStart, break_off),)}, "no change tells it", id="of-a-run"),
        pytest.param({"reactions": (on(DeviceAttach, break_off),)}, "no change tells it", id="of-a-device"),
        pytest.param({"reactions": (on(WireEvent, break_off),)}, "no change tells it", id="of-anything"),
        pytest.param({"vetoes": on(TagAdded, refuse)}, "expected a tuple", id="no-comma"),
        pytest.param({"watches": (refuse,)}, "expected a tuple of on", id="no-on"),
        pytest.param({"vetoes": (on(TagAdded, WAITS),)}, "nobody would wait for it", id="coroutine"),
        pytest.param({"entries": wait}, "nobody would wait for it", id="coroutine-of-entries"),
        pytest.param({"entries": {"/a": "b"}}, "is a plain function", id="no-function"),
    ],
)
def test_handlers_that_could_do_nothing_are_refused(handlers: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Extension(**handlers)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param({"/a": 1}, id="number"),
        pytest.param({1: "a"}, id="number-for-a-key"),
        pytest.param({"/a": b"1"}, id="bytes"),
        pytest.param({"/a": "\udc80"}, id="no-utf-8"),
        pytest.param({"/a": "1\0"}, id="nul"),
        pytest.param(None, id="nothing"),
    ],
)
def test_entries_that_are_no_texts_are_the_failure_of_their_extension(
    entries: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def guest(house: House) -> None:
        await house.do(START, "work")
        assert house.core.running("work").state == "Running"
        found = house.core.extensions.entries(house.qube("work"), {"broken": {"/a": "0"}})
        assert found == {"broken": {"/a": "0"}, "good": {"/b": "1"}}
        assert "extension 'broken' failed in entries of 'work'" in caplog.text

    extensions = {
        "broken": Extension(entries=lambda look, qube: entries),
        "good": Extension(entries=lambda look, qube: {"/b": "1"}),
    }
    stay(tmp_path, extensions, guest)


FILE = Path("/etc/hostname")


def fail(view: View, qube: Qube) -> Mapping[str, Path]:
    raise ZeroDivisionError("of its own")


def never(view: View, qube: Qube) -> Mapping[str, Path]:
    while True:
        pass


def saving(**files: object) -> Any:
    """An extension's word, be it right or wrong; ``_`` stands for a dot in a name."""
    return lambda view, qube: {name.replace("_", "."): file for name, file in files.items()}


@pytest.mark.parametrize(
    ("handlers", "said"),
    [
        pytest.param({"a": fail}, "'a' fails .* of qube 'work'", id="raises"),
        pytest.param({"a": never}, "'a' fails", id="hangs"),
        pytest.param({"a": lambda view, qube: None}, "'a' fails", id="no-mapping"),
        pytest.param({"a": saving(private_img=FILE)}, "'a' fails", id="image"),
        pytest.param({"a": saving(firewall_xml=FILE)}, "'a' fails", id="firewall"),
        pytest.param({"a": saving(notes_txt=FILE)}, "'a' fails", id="notes"),
        pytest.param({"a": saving(empty=FILE)}, "'a' fails", id="empty"),
        pytest.param({"a": lambda view, qube: {"../x": FILE}}, "'a' fails", id="up"),
        pytest.param({"a": lambda view, qube: {".x": FILE}}, "'a' fails", id="dot"),
        pytest.param({"a": lambda view, qube: {"x" * 49: FILE}}, "'a' fails", id="long"),
        pytest.param({"a": lambda view, qube: {"x\n": FILE}}, "'a' fails", id="line-end"),
        pytest.param({"a": lambda view, qube: {1: FILE}}, "'a' fails", id="no-name"),
        pytest.param({"a": saving(x="/etc/hostname")}, "'a' fails", id="no-path"),
        pytest.param({"a": saving(x=Path("x"))}, "'a' fails", id="relative"),
        pytest.param({"a": saving(x=FILE), "b": saving(x=FILE)}, "'b' fails", id="twice"),
        pytest.param({"a": saving(**{f"x{n}": FILE for n in range(17)})}, "'a' fails", id="many"),
    ],
)
def test_what_cannot_be_saved_is_told(
    handlers: dict[str, Any], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def guest(house: House) -> None:
        for _ in range(2):
            with pytest.raises(QubesError, match=said):
                house.core.added(house.qube("work"))
        assert "failed in what it saves of 'work'" in caplog.text

    extensions = {name: Extension(saved=handler) for name, handler in handlers.items()}
    stay(tmp_path, extensions, guest, limit=0.5)


def test_what_is_saved_is_what_all_say(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        names = [f"x{number}" for number in range(15)]
        assert house.core.added(house.qube("work")) == dict.fromkeys([*names, "y.img.old"], FILE)

    most = Extension(saved=saving(**{f"x{n}": FILE for n in range(15)}))
    stay(tmp_path, {"a": most, "b": Extension(), "c": Extension(saved=saving(y_img_old=FILE))}, guest)
