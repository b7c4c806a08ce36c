"""The policy language: text to rules, rules and a world to a decision; imports nothing of ours.

>>> policy = load(DirectorySource())
>>> decide(policy, Request.of("admin.vm.Start+", "mgmt", "work"), world)
"""

from policy_engine.catalogue import Catalogue, Entry, Kind, Names
from policy_engine.confirm import Particulars, allowance, confirm
from policy_engine.convert import Conversion, convert
from policy_engine.decide import decide
from policy_engine.decision import Allowed, Asked, Decision, Denied, Request
from policy_engine.delegation import Allowance, AnyRule, DelegationRule, Limit
from policy_engine.edit import Changes, Editing, Faults
from policy_engine.errors import ClosedFrame, PolicyError, WorldError
from policy_engine.explain import Demands, Explanation, NearMiss, explain, inclusions
from policy_engine.format import format_rule
from policy_engine.graph import Labels, Scope, called, graph
from policy_engine.hidden import hidden
from policy_engine.lint import Finding, lint
from policy_engine.load import CONFIGURED, LEGACY, RUNTIME, Loader, load
from policy_engine.model import Action, Allow, Ask, Deny, Inclusion, Rule, Selector
from policy_engine.policy import Policy
from policy_engine.read import MAX_FILE
from policy_engine.respond import respond, settle, take
from policy_engine.source import DirectorySource, MemorySource, PolicySource
from policy_engine.visible import visible
from policy_engine.world import QubeFacts, World

__all__ = [
    "CONFIGURED",
    "LEGACY",
    "MAX_FILE",
    "RUNTIME",
    "Action",
    "Allow",
    "Allowance",
    "Allowed",
    "AnyRule",
    "Ask",
    "Asked",
    "Catalogue",
    "Changes",
    "ClosedFrame",
    "Conversion",
    "Decision",
    "DelegationRule",
    "Demands",
    "Denied",
    "Deny",
    "DirectorySource",
    "Editing",
    "Entry",
    "Explanation",
    "Faults",
    "Finding",
    "Inclusion",
    "Kind",
    "Labels",
    "Limit",
    "Loader",
    "MemorySource",
    "Names",
    "NearMiss",
    "Particulars",
    "Policy",
    "PolicyError",
    "PolicySource",
    "QubeFacts",
    "Request",
    "Rule",
    "Scope",
    "Selector",
    "World",
    "WorldError",
    "allowance",
    "called",
    "confirm",
    "convert",
    "decide",
    "explain",
    "format_rule",
    "graph",
    "hidden",
    "inclusions",
    "lint",
    "load",
    "respond",
    "settle",
    "take",
    "visible",
]
