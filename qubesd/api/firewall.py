"""The firewall of a qube (``spec/admin-calls.md`` 5)."""

from __future__ import annotations

from qubesd.api.method import DONE, Access, Command, Destination, Method, Need, Reply, Scope, Text, Unguarded
from qubesd.api.values import Unspoken
from qubesd.core.core import Core
from qubesd.errors import BadValue, ProtocolError
from qubesd.model.firewall import Rule, line, parse
from qubesd.model.state import Qube

_ONE_VALUE = Unguarded("the rules of the one qube that the call was judged for")
_EMPTY = Unguarded("the answer is empty")


async def get(core: Core, command: Command) -> Reply:
    return Text("".join(f"{line(rule)}\n" for rule in await core.firewalls.rules(command.target)))


async def set_rules(core: Core, command: Command) -> Reply:
    await core.power.lives.finish(core.firewalls.set(command.target, command.value))
    await core.power.downstream.tell(command.target)
    return DONE


async def reload(core: Core, command: Command) -> Reply:
    core.firewalls.reload(command.target)
    await core.power.downstream.tell(command.target)
    return DONE


def _parse_rules(core: Core, target: Qube, argument: str, untrusted_payload: bytes) -> list[Rule]:
    try:
        untrusted_text = untrusted_payload.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("firewall rules are ASCII") from None
    rules = []
    for number, untrusted_line in enumerate(untrusted_text.splitlines(), start=1):
        try:
            rules.append(parse(untrusted_line))
        except BadValue as error:
            raise BadValue(f"rule {number}: {error}") from None
    return rules


METHODS = (
    Method("admin.vm.firewall.Get", get, Scope.LOCAL, Access.READ, _ONE_VALUE, Destination.QUBE),
    Method(
        "admin.vm.firewall.Set",
        set_rules,
        Scope.LOCAL,
        Access.WRITE,
        _EMPTY,
        Destination.QUBE,
        payload=Need.REQUIRED,
        parse=_parse_rules,
        values=Unspoken("a list of rules"),
    ),
    Method("admin.vm.firewall.Reload", reload, Scope.LOCAL, Access.WRITE, _EMPTY, Destination.QUBE),
)
