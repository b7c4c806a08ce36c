"""What the operators may do: by the delegation dialect, or by stock rules under strict visibility."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from qubesd.api.method import Access, Scope
from qubesd.api.table import METHODS
from tools.interfering.words import ALICES, MADE, Words

OPERATOR = "alice"
OTHER = "bob"


@dataclass(frozen=True, slots=True)
class Rules:
    """``files`` are those of the policy by name, ``words`` what alice draws from."""

    files: Mapping[str, str]
    words: Words
    configuration: str = ""


_ROLE = """\
!dialect delegation-1
!define @mine    (@tag:created-by-{source}|@tag:managed-by-{source})
!limit  @tag:operator  qubes=10 running=4 memory=8GiB storage=100GiB

admin.label.List|admin.label.Get  +secret*         @tag:operator  @adminvm        deny
admin.vm.List|admin.Events|admin.vm.Stats  *       @tag:operator  @adminvm|@mine  allow
admin.label.List|admin.label.Get  *                @tag:operator  @adminvm        allow
@read:local                       *                @tag:operator  @mine           allow
@execute:local                    *                @tag:operator  @mine           allow
admin.vm.property.Set             +netvm           @tag:operator  @mine           allow \
value=(@tag:shared-net|none)
admin.vm.property.Set             +memory|+maxmem  @tag:operator  @mine           allow value=256..4096
admin.vm.property.Set             +label           @tag:operator  @mine           allow
admin.vm.tag.Set                  +backup          @tag:operator  @mine           allow
admin.vm.Create.AppVM             @tag:shared-tpl  @tag:operator  @adminvm        allow \
value=(name={source}_* label=red|green)
admin.vm.Remove                   *                @tag:operator  @mine           allow
admin.*                           *                @tag:team      @tag:team       !include include/team
# The frame is of the team's qubes; what is asked of dom0 stands beside it.
admin.pool.List|admin.pool.Info   +teampool        @tag:operator  @adminvm        allow
admin.pool.List                   *                @tag:operator  @adminvm        allow
@read:global                      +                @tag:operator  @adminvm        allow
admin.property.List|admin.property.GetAll|admin.property.Get|admin.property.GetDefault|admin.property.Help\
|admin.property.HelpRst           *                @tag:operator  @adminvm        allow
@read:global                      +varlibqubes     @tag:operator  @adminvm|@mine  allow
admin.pool.volume.*               *                @tag:team      @adminvm|@tag:team  allow
"""
"""The operator role of the design, and further rules so that most handlers are reached."""

_TEAM = """\
!dialect delegation-1
@read:local     *  @tag:team  @tag:team  allow
@write:local    *  @tag:team  @tag:team  allow
@execute:local  *  @tag:team  @tag:team  allow
admin.vm.List|admin.Events|admin.vm.Stats|admin.vm.CreateDisposable  *  @tag:team  @tag:team  allow
"""


_ON_QUBES = (
    "admin.vm.List",
    "admin.vm.Stats",
    "admin.vm.CreateDisposable",
    "admin.vm.Remove",
    "admin.Events",
)
_ON_DOM0 = ("admin.vm.Create.AppVM",)


def _stock() -> Iterator[str]:
    """All of what is local, and what the role has besides."""
    for operator in (OPERATOR, OTHER):
        for name, method in METHODS.items():
            if method.scope is Scope.LOCAL or name in _ON_QUBES:
                for tag in (f"managed-by-{operator}", f"created-by-{operator}", "team"):
                    yield f"{name} * {operator} @tag:{tag} allow target=dom0\n"
            if name.startswith(("admin.label.", "admin.pool.")) and method.access is Access.READ:
                for hidden in ("secretlabel", "secretpool", "secretnew"):
                    yield f"{name} +{hidden} {operator} @adminvm deny\n"
            is_read = method.scope is Scope.GLOBAL and method.access is Access.READ
            if is_read or name.startswith(("admin.vm.Create.AppVM", "admin.pool.volume.")):
                yield f"{name} * {operator} @adminvm allow target=dom0\n"


RULES: Mapping[str, Rules] = {
    "dialect": Rules({"30-role.policy": _ROLE, "include/team": _TEAM}, ALICES),
    # Nothing holds her to names of her own here, and whether others have a name is a declared channel.
    "stock": Rules(
        {"30-role.policy": "".join(_stock())}, replace(ALICES, new=MADE), 'visibility = "strict"\n'
    ),
}
