"""The files that the configuration tools show, and which rules of Qubes 4.0 they can show there
(``spec/policy-daemon.md`` 11)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from policy_engine.model import (
    ANY,
    DOM0_TEXTS,
    AdminQube,
    Allow,
    Ask,
    Deny,
    Disposable,
    DisposableOf,
    Named,
    NoTarget,
    Redirect,
    Rule,
    Selector,
    Tagged,
    Typed,
)

USER_FILE = "30-user.policy"
"""For the rules that fit nowhere else."""

INPUT_FILE = "50-config-input.policy"
"""It holds one rule for each service and device, and so is replaced rather than extended."""


def file_for(service: str) -> str:
    """The name of the file that the rules of a service go to as far as they fit."""
    return _TABLE[service][0] if service in _TABLE else USER_FILE


def parted(service: str, rules: Iterable[Rule]) -> tuple[list[Rule], list[Rule]]:
    """The rules that fit into the service's file, and those that are the user's own."""
    if service not in _TABLE:
        return [], list(rules)
    file, fits = _TABLE[service]
    shown: list[Rule] = []
    others: list[Rule] = []
    devices: set[Selector] = set()
    for rule in rules:
        if fits(rule) and not (file == INPUT_FILE and rule.source in devices):
            shown.append(rule)
            devices.add(rule.source)
        else:
            others.append(rule)
    return shown, others


def _is_plain(rule: Rule) -> bool:
    action = rule.action
    if isinstance(action, Deny):
        return True
    return (
        action.target is None
        and action.user is None
        and (isinstance(action, Allow) or action.default_target is None)
    )


def _clipboard(rule: Rule) -> bool:
    return _is_plain(rule) and not isinstance(rule.action, Allow)


def _updates(rule: Rule) -> bool:
    callers = (Typed("TemplateVM"), Tagged("whonix-updatevm"))
    return (
        (isinstance(rule.source, Named) or rule.source in callers)
        and isinstance(rule.action, Allow)
        and isinstance(rule.target, Named | AdminQube | NoTarget)
    )


def _opens(rule: Rule) -> bool:
    if not isinstance(rule.target, Disposable):
        return False
    match rule.action:
        case Allow(target=redirect) | Ask(target=None, default_target=redirect):
            return isinstance(redirect, Disposable | DisposableOf)
    return False


def _input(rule: Rule) -> bool:
    action = rule.action
    leads = () if isinstance(action, Deny) else (action.target, getattr(action, "default_target", None))
    return (
        isinstance(rule.source, Named)
        and _is_dom0(rule.target)
        and all(lead is None or _is_dom0(lead) for lead in leads)
    )


def _is_dom0(place: Selector | Redirect) -> bool:
    return place.token in DOM0_TEXTS


def _u2f(rule: Rule) -> bool:
    return rule.argument == ANY and isinstance(rule.target, Named | AdminQube)


def _registers(rule: Rule) -> bool:
    return rule.argument == "+u2f.Authenticate" and isinstance(rule.target, Named | AdminQube)


_TABLE: dict[str, tuple[str, Callable[[Rule], bool]]] = {
    "qubes.ClipboardPaste": ("50-config-clipboard.policy", _clipboard),
    "qubes.Filecopy": ("50-config-filecopy.policy", _is_plain),
    "qubes.UpdatesProxy": ("50-config-updates.policy", _updates),
    "qubes.OpenInVM": ("50-config-openinvm.policy", _opens),
    "qubes.OpenURL": ("50-config-openurl.policy", _opens),
    "qubes.InputKeyboard": (INPUT_FILE, _input),
    "qubes.InputMouse": (INPUT_FILE, _input),
    "qubes.InputTablet": (INPUT_FILE, _input),
    "u2f.Authenticate": ("50-config-u2f.policy", _u2f),
    "u2f.Register": ("50-config-u2f.policy", _u2f),
    "policy.RegisterArgument": ("50-config-u2f.policy", _registers),
}
