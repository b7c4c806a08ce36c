"""Whatever a guest announces, only features of known names change, on its own qube, and not many."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qubesd.core.draft import Draft
from qubesd.core.guest_events import FeaturesRequest
from tests.qubesd.house import House, visit

KNOWN = re.compile(
    r"os|os-(distribution|distribution-like|version|eol)|qubes-agent-version|qrexec|gui|gui-emulated"
    r"|qubes-firewall|vmexec|anon-timezone|rpc-clipboard|stubdom-qrexec|audio-model|timezone"
    r"|no-monitor-layout|supported-(service|feature|rpc)\..+"
    r"|boot-mode\.((kernelopts|name|default-user)\.[^.]+|active|appvm-default|standalone-default)"
)
OF_A_TEMPLATES_QUBE = re.compile(r"supported-rpc\..+")

words = st.text("aA0_-.", max_size=4)
names = st.one_of(
    words,
    st.sampled_from(["os", "os-eol", "os-version", "qrexec", "gui", "vmexec", "anon-timezone", "netvm"]),
    st.sampled_from(["owner-uuid", "preload-dispvm", "internal", "service.x", "boot-mode.active"]),
    st.builds(
        "{}{}".format,
        st.sampled_from(["supported-rpc.", "supported-service.", "boot-mode.kernelopts.", "boot-mode.name."]),
        words,
    ),
)
values = st.one_of(st.sampled_from(["", "0", "1", "Linux", "Windows", "default", "a"]), words)
requests = st.dictionaries(names.filter(bool), values, max_size=12)


def test_only_what_a_guest_may_say_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And no extension fails over it: who asks is running, as ever."""

    async def guest(house: House) -> None:
        for name in ("debian-13", "work"):
            await house.do("admin.vm.Start", name)
        before = house.core.system

        @given(st.lists(requests, max_size=3), st.sampled_from(["debian-13", "work", "web-dvm"]))
        def law(asked: list[dict[str, str]], caller: str) -> None:
            draft = Draft(house.core)
            for one in asked:
                draft.tell(FeaturesRequest(caller, one))
            after = draft.system
            allowed = KNOWN if caller == "debian-13" else OF_A_TEMPLATES_QUBE
            old, new = before.qubes[caller], after.qubes[caller]
            changed = {
                name
                for name in {*old.features, *new.features}
                if old.features.get(name) != new.features.get(name)
            }
            assert all(allowed.fullmatch(name) for name in changed)
            assert after.qubes == {**before.qubes, caller: new}
            assert (new.tags, new.volumes, new.assignments) == (old.tags, old.volumes, old.assignments)
            properties = {**old.properties, **new.properties}
            assert {name for name in properties if old.properties.get(name) != properties[name]} <= {
                "maxmem", "qrexec_timeout",
            }  # fmt: skip

        law()
        assert house.core.system is before
        assert "failed" not in caplog.text

    visit(tmp_path, guest)
