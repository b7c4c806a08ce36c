"""The features of qubes, and the four ways to look one up along a chain (``spec/admin-calls.md`` 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from qubesd.api.method import (
    DONE,
    Access,
    Command,
    Guard,
    HeldAlong,
    Method,
    NameRows,
    Need,
    Reply,
    Rows,
    Scope,
    Text,
    Unguarded,
)
from qubesd.api.values import Kind, one
from qubesd.core.core import Core
from qubesd.core.features import remove_feature, set_feature
from qubesd.core.tags import BROUGHT_GUIVM, BROUGHT_TAGS
from qubesd.errors import NoSuchFeature, PermissionDenied
from qubesd.model import features
from qubesd.model.lineage import netvms, templates
from qubesd.model.names import check_feature_name, check_feature_value
from qubesd.model.owner import OWNER
from qubesd.model.state import DOM0, Klass, Qube, System

_KEPT_BY_DAEMON = frozenset(
    (
        "deferred-netvm-original",
        "preload-dispvm",
        "preload-dispvm-completed",
        "preload-dispvm-in-progress",
    )
)
"""Features that are the daemon's own notes; no caller changes them, dom0 included."""
_DOM0S = frozenset((BROUGHT_TAGS, BROUGHT_GUIVM, OWNER))
"""Features that say what authority a qube gives to those that it creates, and whom a qube counts for."""

_ONE_VALUE = Unguarded("the one value that the call was judged for")
_EMPTY = Unguarded("the answer is empty")
_ALONG = HeldAlong("admin.vm.feature.Get")

Chain = Callable[[System, Qube], Iterable[Qube]]
"""The qubes that are looked at in turn, the qube itself first."""


def list_features(core: Core, command: Command) -> Reply:
    """All but the owner: a stock tool that clones a qube copies every feature of the list, and the copy is
    its maker's."""
    return Rows({name: f"{name}\n" for name in command.target.features if name != OWNER})


def look_up(along: Chain, core: Core, command: Command) -> Reply:
    """What others along the chain hold counts where the caller may read it of them."""
    target = command.target
    chain = (qube for qube in along(core.system, target) if qube is target or command.sees(qube.name))
    value = features.first(chain, command.argument)
    if value is None:
        raise NoSuchFeature(f"no feature {command.argument[:64]!r}")
    return Text(value)


async def set_(core: Core, command: Command) -> Reply:
    _refuse_guarded(command)
    set_feature(core, command.target, command.argument, command.value)
    await core.durable()
    return DONE


async def remove(core: Core, command: Command) -> Reply:
    _refuse_guarded(command)
    remove_feature(core, command.target, command.argument)
    await core.durable()
    return DONE


def _refuse_guarded(command: Command) -> None:
    """Whose a qube is decides what it counts against; dom0 hands it over by that feature."""
    if command.argument in _KEPT_BY_DAEMON:
        raise PermissionDenied("this feature is kept by the daemon")
    if command.argument == OWNER and command.caller.klass is not Klass.ADMIN:
        raise PermissionDenied("only dom0 changes the feature that says who owns a qube")


def _parse_set(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> str:
    check_feature_name(argument)
    return check_feature_value(untrusted_payload)


def _is_dom0s(argument: str) -> bool:
    """`tag-created-vm-with`, `set-created-guivm` and `owner-uuid`."""
    return argument in _DOM0S


def _itself(system: System, qube: Qube) -> Iterable[Qube]:
    return (qube,)


def _and_admin(system: System, qube: Qube) -> Iterable[Qube]:
    return (qube, system.qubes[DOM0])


def _templates_and_admin(system: System, qube: Qube) -> Iterable[Qube]:
    return (*templates(system, qube), system.qubes[DOM0])


def _read(name: str, along: Chain, guard: Guard = _ALONG) -> Method:
    return Method(
        f"admin.vm.feature.{name}",
        partial(look_up, along),
        Scope.LOCAL,
        Access.READ,
        guard,
        argument=Need.REQUIRED,
    )


METHODS = (
    Method(
        "admin.vm.feature.List",
        list_features,
        Scope.LOCAL,
        Access.READ,
        NameRows("admin.vm.feature.Get"),
    ),
    _read("Get", _itself, _ONE_VALUE),
    _read("CheckWithTemplate", templates),
    _read("CheckWithNetvm", netvms),
    _read("CheckWithAdminVM", _and_admin),
    _read("CheckWithTemplateAndAdminVM", _templates_and_admin),
    Method(
        "admin.vm.feature.Set",
        set_,
        Scope.LOCAL,
        Access.WRITE,
        _EMPTY,
        argument=Need.REQUIRED,
        payload=Need.OPTIONAL,
        parse=_parse_set,
        values=one(Kind.TEXT),
        reserved=_is_dom0s,
    ),
    Method(
        "admin.vm.feature.Remove",
        remove,
        Scope.LOCAL,
        Access.WRITE,
        _EMPTY,
        argument=Need.REQUIRED,
        reserved=_is_dom0s,
    ),
)
