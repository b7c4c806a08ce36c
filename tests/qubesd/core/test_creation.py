"""What a new qube is, and what it has from its template and its creator."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from qubesd.core.creation import no_name
from qubesd.core.disposables import RESTED, Numbers
from qubesd.errors import QubesError
from qubesd.model.names import MAX_DISPID
from qubesd.model.state import Klass, System
from tests.qubesd.house import House, visit

CREATE = "admin.vm.Create"


@pytest.mark.parametrize(
    ("words", "want"),
    [
        pytest.param(("AppVM", "debian-13", "name=work label=pink"), "QubesLabelNotFoundError", id="label"),
        pytest.param(("AppVM", "nosuch", "name=work label=red"), "QubesVMAlreadyExistsError", id="name"),
        pytest.param(("AppVM", "nosuch", "name=bank label=red"), "QubesVMNotFoundError", id="template"),
        pytest.param(("AppVM", "work", "name=bank label=red"), "QubesPropertyValueError", id="no-template"),
        pytest.param(("AppVM", "dom0", "name=bank label=red"), "QubesPropertyValueError", id="dom0"),
        pytest.param(("AppVM", "", "name=bank label=red"), "QubesValueError", id="no-default"),
        pytest.param(("DispVM", "", "name=bank label=red"), "QubesValueError", id="no-default-dispvm"),
        pytest.param(("DispVM", "work", "name=bank label=red"), "QubesValueError", id="no-disposables"),
        pytest.param(("StandaloneVM", "debian-13", "name=b label=red"), "ProtocolError", id="standalone"),
        pytest.param(("AppVM", "", "name=bank"), "ProtocolError", id="missing-label"),
        pytest.param(("AppVM", "", "name=bank  label=red"), "ProtocolError", id="two-blanks"),
        pytest.param(("AppVM", "", "name=bank label=red pool=p"), "ProtocolError", id="pool"),
        pytest.param(("AppVM", "", "name=bank label=red label=red"), "ProtocolError", id="twice"),
        pytest.param(("AppVM", "", "name=b\u00e9 label=red"), "ProtocolError", id="not-ascii"),
        pytest.param(("AppVM", "", "name=../x label=red"), "QubesValueError", id="path"),
        pytest.param(("AppVM", "", "name=bank label=12"), "QubesInvalidLabelError", id="label-number"),
    ],
)
def test_refusal(words: tuple[str, str, str], want: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        before = house.core.system
        assert await house.call(f"{CREATE}.{words[0]}", "dom0", *words[1:]) == want
        assert house.core.system is before
        assert house.told == []

    visit(tmp_path, guest)


@pytest.mark.parametrize(
    ("payload", "want"),
    [
        pytest.param("pool=varlibqubes", "", id="all"),
        pytest.param("pool:private=varlibqubes pool:volatile=varlibqubes", "", id="some"),
        pytest.param("pool:root=varlibqubes", "QubesException", id="snapshot"),
        pytest.param("pool=nosuch", "QubesException", id="unknown"),
        pytest.param("pool=varlibqubes pool:private=varlibqubes", "ProtocolError", id="both"),
        pytest.param("pool:extra=varlibqubes", "ProtocolError", id="no-such-volume"),
        pytest.param("root=varlibqubes", "ProtocolError", id="no-prefix"),
    ],
)
def test_pools(payload: str, want: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        words = f"name=bank label=red {payload}"
        assert await house.call("admin.vm.CreateInPool.AppVM", "dom0", "debian-13", words) == want
        assert ("bank" in house.core.system.qubes) is (want == "")

    visit(tmp_path, guest)


def test_disposable_has_what_its_template_has(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.property.Set", "web-dvm", "memory", "555")
        await house.do("admin.vm.feature.Set", "web-dvm", "menu-items", "copied")
        await house.do("admin.vm.tag.Set", "web-dvm", "team")
        name = await house.call("admin.vm.CreateDisposable", "web-dvm")
        made = house.qube(name)
        assert made.klass is Klass.DISPOSABLE
        assert name == f"disp{made.dispid}"
        assert made.properties == {
            "label": "red",
            "template": "web-dvm",
            "auto_cleanup": True,
            "memory": 555,
        }
        assert made.features == {"menu-items": "copied"}
        assert made.tags == {
            "team",
            "audiovm-dom0",
            "guivm-dom0",
            "created-by-dom0",
            "disp-created-by-dom0",
        }

    visit(tmp_path, guest)


@pytest.mark.parametrize(
    ("words", "want"),
    [
        pytest.param(("work",), "QubesException", id="no-template-for-disposables"),
        pytest.param(("dom0",), "QubesException", id="none-set"),
        pytest.param(("web-dvm", "x"), "PermissionDenied", id="argument"),
        pytest.param(("web-dvm", "", "UUID"), "ProtocolError", id="payload"),
        pytest.param(("work", "preload"), "QubesException", id="preload-of-no-template"),
    ],
)
def test_disposable_refused(words: tuple[str, ...], want: str, tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        assert await house.call("admin.vm.CreateDisposable", *words) == want

    visit(tmp_path, guest)


def test_disposable_of_the_caller(tmp_path: Path) -> None:
    """Asked of dom0, the template is the caller's own ``default_dispvm``; the answer can be the uuid."""

    async def guest(house: House) -> None:
        await house.do("admin.vm.property.Set", "work", "default_dispvm", "web-dvm")
        token = await house.call("admin.vm.CreateDisposable", payload="uuid", caller="work")
        made = house.core.system.find(token)
        assert made is not None
        assert made.properties["template"] == "web-dvm"
        assert {"created-by-work", "disp-created-by-work"} <= made.tags

    visit(tmp_path, guest)


def test_creator_gives_tags_and_gui(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.feature.Set", "work", "tag-created-vm-with", "team urgent no.tag")
        await house.do("admin.vm.feature.Set", "work", "set-created-guivm", "sys-net")
        house.told.clear()
        await house.do(f"{CREATE}.AppVM", "dom0", "debian-13", "name=bank label=red", caller="work")
        bank = house.qube("bank")
        assert bank.tags == {"team", "urgent", "created-by-work", "guivm-sys-net", "audiovm-dom0"}
        assert bank.properties["guivm"] == "sys-net"
        assert house.names() == [
            "domain-add",
            "bank domain-tag-add:team",
            "bank domain-tag-add:urgent",
            "bank property-pre-set:guivm",
            "bank domain-tag-delete:guivm-dom0",
            "bank domain-tag-add:guivm-sys-net",
            "bank property-set:guivm",
            "bank domain-tag-add:created-by-work",
            "bank domain-create-on-disk",
        ]

    visit(tmp_path, guest)


def test_creator_cannot_say_that_somebody_else_created_it(tmp_path: Path) -> None:
    """The attack: a policy grants by ``created-by-boss``, and a caller may set features on itself."""

    async def guest(house: House) -> None:
        feature = "created-by-boss disp-created-by-boss"
        await house.do("admin.vm.feature.Set", "work", "tag-created-vm-with", feature)
        await house.do(f"{CREATE}.AppVM", "dom0", "debian-13", "name=bank label=red", caller="work")
        assert house.qube("bank").tags == {"created-by-work", "guivm-dom0", "audiovm-dom0"}

    visit(tmp_path, guest)


def test_gui_that_cannot_be_leaves_no_half_made_qube(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.feature.Set", "work", "set-created-guivm", "nosuch")
        before = house.core.system
        words = ("dom0", "debian-13", "name=bank label=red")
        assert await house.call(f"{CREATE}.AppVM", *words, caller="work") == "QubesPropertyValueError"
        assert house.core.system is before

    visit(tmp_path, guest)


def test_creator_whose_name_is_no_tag(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do(f"{CREATE}.AppVM", "dom0", "debian-13", "name=a.b label=red")
        await house.do(f"{CREATE}.AppVM", "dom0", "debian-13", "name=bank label=red", caller="a.b")
        assert house.qube("bank").tags == {"guivm-dom0", "audiovm-dom0"}
        assert house.qube("bank").volumes

    visit(tmp_path, guest)


def test_numbers_of_qubes(tmp_path: Path) -> None:
    """dom0 gets the lowest free one; others could count by it what they may not see."""

    async def guest(house: House) -> None:
        await house.do("admin.vm.Remove", "work")
        await house.do(f"{CREATE}.StandaloneVM", payload="name=alone label=red")
        assert house.qube("alone").qid == 2
        for name in ("a", "b", "c"):
            await house.do(f"{CREATE}.StandaloneVM", payload=f"name={name} label=red", caller="sys-net")
        assert {house.qube(name).qid for name in ("a", "b", "c")} != {5, 6, 7}

    visit(tmp_path, guest)


def test_numbers_of_disposables_rest() -> None:
    now = 0.0
    numbers = Numbers(lambda: now)
    given = {numbers.draw(System(), no_name) for _ in range(MAX_DISPID + 1)}
    assert given == set(range(MAX_DISPID + 1))
    with pytest.raises(QubesError, match="no number is free"):
        numbers.draw(System(), no_name)
    now = RESTED
    assert numbers.draw(System(), no_name) in given


def test_new_qube_looks_for_no_updates_where_that_is_off(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.property.Set", "dom0", "check_updates_vm", "False")
        await house.do(f"{CREATE}.StandaloneVM", payload="name=alone label=red")
        await house.do(f"{CREATE}.RemoteVM", payload="name=far label=red")
        assert house.qube("alone").features == {"check-updates": ""}
        assert house.qube("far").features == {}
        assert house.qube("far").volumes == {}

    visit(tmp_path, guest)


def test_many_at_once_have_numbers_of_their_own(tmp_path: Path) -> None:
    async def guest(house: House) -> None:
        await house.do("admin.vm.firewall.Set", "web-dvm", "", "action=drop\n")
        calls = [
            *(house.call("admin.vm.CreateDisposable", "web-dvm") for _ in range(8)),
            *(
                house.call("admin.vm.Create.AppVM", "dom0", "debian-13", f"name=new-{number} label=red")
                for number in range(8)
            ),
            *(
                house.call("admin.vm.Create.StandaloneVM", "dom0", "", "name=one-name label=red")
                for _ in range(4)
            ),
        ]
        answers = await asyncio.gather(*calls)
        assert answers.count("QubesVMAlreadyExistsError") == 3
        qids = [qube.qid for qube in house.core.system.qubes.values()]
        assert len(set(qids)) == len(qids) == 5 + 8 + 8 + 1

    visit(tmp_path, guest)


def test_an_image_that_nobody_knows_stays(tmp_path: Path) -> None:
    """Somebody put it there; a qube of that name is refused, and nothing of it is touched."""

    async def guest(house: House) -> None:
        image = tmp_path / "var/lib/qubes/appvms/found/private.img"
        image.parent.mkdir()
        image.write_bytes(b"precious")
        payload = "name=found label=red"
        answer = await house.call("admin.vm.Create.AppVM", "dom0", "debian-13", payload)
        assert answer == "StoragePoolException"
        assert [path.name for path in image.parent.iterdir()] == ["private.img"]
        assert image.read_bytes() == b"precious"
        assert "found" not in house.core.system.qubes
        image.unlink()
        await house.do("admin.vm.Create.AppVM", "dom0", "debian-13", payload)

    visit(tmp_path, guest)


def test_disposables_without_a_run_go_when_the_host_boots(tmp_path: Path) -> None:
    """Not when only the daemon starts again: whoever made one may be about to start it."""
    made: list[str] = []

    async def maker(house: House) -> None:
        made.append(await house.call("admin.vm.CreateDisposable", "web-dvm"))
        await house.do("admin.vm.Create.DispVM", "dom0", "web-dvm", "name=named label=red")

    async def after_restart(house: House) -> None:
        assert {"named", *made} <= set(house.core.system.qubes)

    async def after_boot(house: House) -> None:
        assert "named" in house.core.system.qubes
        assert made[0] not in house.core.system.qubes

    visit(tmp_path, maker)
    visit(tmp_path, after_restart, furnished=False)
    shutil.rmtree(tmp_path / "run")
    visit(tmp_path, after_boot, furnished=False)


def test_a_disposable_is_never_called_like_one_that_something_speaks_of() -> None:
    numbers = Numbers(lambda: 0.0)
    kept = {f"disp{number}" for number in range(MAX_DISPID + 1) if number % 1000}
    drawn = {numbers.draw(System(), kept.__contains__) for _ in range(MAX_DISPID // 1000 + 1)}
    assert drawn == set(range(0, MAX_DISPID + 1, 1000))
    with pytest.raises(QubesError):
        numbers.draw(System(), kept.__contains__)
