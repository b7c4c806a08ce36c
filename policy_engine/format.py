"""A rule → its line, such that reading the line gives the same rule. Defaults are left out."""

from policy_engine.delegation import AnyRule, DelegationRule
from policy_engine.model import Action, Allow, Ask, Deny


def format_rule(rule: AnyRule) -> str:
    """The rule as one line of a policy file, fields parted by single blanks, without a line end.

    A rule of the dialect is given as it is written, with the names that its file defines.
    """
    if isinstance(rule, DelegationRule):
        return rule.text
    fields = (rule.service, rule.argument, rule.source.token, rule.target.token, format_action(rule.action))
    return " ".join(fields)


def format_action(action: Action) -> str:
    """The action and those of its parameters that differ from their defaults."""
    match action:
        case Deny(notify):
            return "deny" if notify else "deny notify=no"
        case Allow():
            words = ["allow"]
        case Ask():
            words = ["ask"]
    if action.target is not None:
        words.append(f"target={action.target.token}")
    if isinstance(action, Ask) and action.default_target is not None:
        words.append(f"default_target={action.default_target.token}")
    if action.user is not None:
        words.append(f"user={action.user}")
    if not action.autostart:
        words.append("autostart=no")
    if action.notify:
        words.append("notify=yes")
    return " ".join(words)
