"""Listing, making and removing qubes (``spec/admin-calls.md`` 2)."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from functools import partial

from qubesd.api.method import (
    DONE,
    Access,
    Command,
    Destination,
    Method,
    Need,
    QubeRows,
    Reply,
    Rows,
    Scope,
    Text,
    Unguarded,
)
from qubesd.api.values import SINGLE, Canonical, Kind, Names, Values, plain
from qubesd.core.core import Core
from qubesd.core.creation import Wanted, default_template
from qubesd.core.keeper import Keeper
from qubesd.core.removal import remove
from qubesd.errors import PermissionDenied, ProtocolError, QubesError
from qubesd.model.names import check_new_label_name, check_qube_name
from qubesd.model.properties import read
from qubesd.model.state import Klass, Qube
from qubesd.model.volumes import NAMES as VOLUMES

_TEMPLATE_BASED = frozenset((Klass.APP, Klass.DISPOSABLE))
_KEYS = ("name", "label")
_POOL_KEYS = ("pool", *(f"pool:{volume}" for volume in VOLUMES))
_EMPTY = Unguarded("the answer is empty")
_MADE = Unguarded("the name of what the caller has just made")


def _row(keeper: Keeper, qube: Qube) -> str:
    return f"{qube.name} class={qube.klass} state={keeper.running(qube.name).state} uuid={qube.uuid}\n"


def list_qubes(core: Core, command: Command) -> Reply:
    rows = core.picture(_row).all()
    if command.target.klass is Klass.ADMIN:
        return Rows(rows)
    return Rows({command.target.name: rows[command.target.name]})


async def create_qube(core: Core, command: Command) -> Reply:
    made = core.creation.create(command.caller, command.value, command.inherits)
    await core.power.lives.finish(made)
    return DONE


def create_disposable_of(core: Core, command: Command) -> Reply | Awaitable[Reply]:
    """One disposable of the destination or, asked of dom0, of what the caller has as ``default_dispvm`` now:
    a change of that while this waits for its turn is none of what was judged."""
    if command.argument not in ("", "preload"):
        raise PermissionDenied("the only argument here is 'preload'")
    name = _disposable_template(core, command)
    template = None if name is None else core.system.qubes.get(name)
    if template is None:
        raise QubesError("no template for disposables is set")
    if command.argument:
        core.preloading.fill(template)
        return DONE
    return _made_for(core, command, template)


async def _made_for(core: Core, command: Command, template: Qube) -> Reply:
    made = await core.power.lives.finish(_take_or_make(core, command, template))
    return Text(f"uuid:{made.uuid}" if command.value else made.name)


async def remove_qube(core: Core, command: Command) -> Reply:
    await core.power.lives.finish(_remove(core, command.target))
    return DONE


async def _remove(core: Core, qube: Qube) -> None:
    async with core.preloading.making_way(qube), core.power.lives.holding(qube):
        await remove(core, core.storage, qube)
        await core.power.lives.forget(qube)


async def _take_or_make(core: Core, command: Command, template: Qube) -> Qube:
    wanted = command.caller, template, command.inherits
    return await core.preloading.take(*wanted) or await core.creation.create_disposable(*wanted)


def _disposable_template(core: Core, command: Command) -> str | None:
    if command.target.klass is not Klass.ADMIN:
        return command.target.name
    if command.caller.klass is Klass.REMOTE:
        return None
    value = read(core, command.caller, "default_dispvm").value
    return None if value is None else str(value)


def _parse_uuid_wish(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> bool:
    """Whether the answer is to be the uuid."""
    if untrusted_payload not in (b"", b"uuid"):
        raise ProtocolError("the payload is empty or 'uuid'")
    return untrusted_payload == b"uuid"


def _parse_new(
    klass: Klass, in_pool: bool, core: Core, target: Qube, argument: str, untrusted_payload: bytes
) -> Wanted:
    """The qube that the words ``key=value`` of the payload ask for, of the template that it will have."""
    if argument and klass not in _TEMPLATE_BASED:
        raise ProtocolError(f"a {klass} has no template")
    words = _words(untrusted_payload)
    untrusted_name, untrusted_label = words.pop("name", None), words.pop("label", None)
    if untrusted_name is None or untrusted_label is None:
        raise ProtocolError("both 'name=' and 'label=' are needed")
    pool = words.pop("pool", None) if in_pool else None
    pools = {}
    for untrusted_key, untrusted_pool in words.items():
        volume = untrusted_key.removeprefix("pool:")
        if not in_pool or volume == untrusted_key or volume not in VOLUMES:
            raise ProtocolError(f"unknown key {untrusted_key[:64]!r}")
        pools[volume] = untrusted_pool
    if pool is not None and pools:
        raise ProtocolError("give 'pool=' or 'pool:VOLUME=', not both")
    return Wanted(
        klass,
        check_qube_name(untrusted_name),
        check_new_label_name(untrusted_label),
        check_qube_name(argument) if argument else default_template(core, klass),
        pool,
        pools,
    )


def _words(untrusted_payload: bytes) -> dict[str, str]:
    try:
        untrusted_text = untrusted_payload.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("the payload is not ASCII") from None
    words: dict[str, str] = {}
    for untrusted_word in untrusted_text.split(" "):
        untrusted_key, equals, untrusted_value = untrusted_word.partition("=")
        if not equals:
            raise ProtocolError("the payload is words KEY=VALUE with single spaces between them")
        if untrusted_key in words:
            raise ProtocolError(f"key {untrusted_key[:64]!r} given twice")
        words[untrusted_key] = untrusted_value
    return words


def _given(value: Wanted) -> Mapping[str, Canonical]:
    """The name, the label, and each pool."""
    pools = {f"pool:{volume}": plain(pool) for volume, pool in value.pools.items()}
    whole = {} if value.pool is None else {"pool": plain(value.pool)}
    return {"name": value.name, "label": value.label, **whole, **pools}


def _given_wish(value: bool) -> Mapping[str, Canonical]:
    return {SINGLE: "uuid" if value else None}


def _template_of_new(core: Core, command: Command) -> tuple[str, ...]:
    """The template of the new qube."""
    return () if command.value.template is None else (command.value.template,)


def _template_of_disposable(core: Core, command: Command) -> tuple[str, ...]:
    """The qube that the disposable is made of."""
    name = _disposable_template(core, command)
    return () if name is None else (name,)


def _creations(service: str, in_pool: bool) -> tuple[Method, ...]:
    """The method for each class; there is one AdminVM and no making another."""
    return tuple(
        Method(
            f"{service}.{klass}",
            create_qube,
            Scope.GLOBAL,
            Access.WRITE,
            _EMPTY,
            Destination.DOM0,
            argument=Need.OPTIONAL,
            payload=Need.REQUIRED,
            parse=partial(_parse_new, klass, in_pool),
            names=Names.QUBE if klass in _TEMPLATE_BASED else Names.NOTHING,
            values=Values(dict.fromkeys((*_KEYS, *(_POOL_KEYS if in_pool else ())), Kind.TEXT), _given),
            touches=_template_of_new if klass in _TEMPLATE_BASED else None,
            creates=True,
        )
        for klass in Klass
        if klass is not Klass.ADMIN
    )


METHODS = (
    Method("admin.vm.List", list_qubes, Scope.GLOBAL, Access.READ, QubeRows("admin.vm.List")),
    *_creations("admin.vm.Create", in_pool=False),
    *_creations("admin.vm.CreateInPool", in_pool=True),
    Method(
        "admin.vm.CreateDisposable",
        create_disposable_of,
        Scope.GLOBAL,
        Access.WRITE,
        _MADE,
        argument=Need.OPTIONAL,
        payload=Need.OPTIONAL,
        parse=_parse_uuid_wish,
        values=Values({SINGLE: Kind.TEXT}, _given_wish),
        touches=_template_of_disposable,
    ),
    Method("admin.vm.Remove", remove_qube, Scope.GLOBAL, Access.WRITE, _EMPTY),
)
