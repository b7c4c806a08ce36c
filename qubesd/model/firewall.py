"""The rules of a qube's firewall (``spec/admin-calls.md`` 5): from a client's text to one form, and back.

A rule that nothing else matches is ``drop`` and never listed; a qube that never had rules set accepts all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from qubesd.errors import BadValue

_VALUE = re.compile(r"[A-Za-z0-9:;,./\-_\[\]]+", re.ASCII)
_COMMENT = re.compile(r"[A-Za-z0-9:;,./\-_\[\] ]*", re.ASCII)
_HOST = re.compile(r"[a-z0-9\-._]{1,253}", re.ASCII)
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_MOST_PORT = 65_535
_TARGETS = ("dst4", "dst6", "dsthost", "dstname")
"""What a client may call the destination; which kind it is, the value tells."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, each part in its one form; ``None`` where the rule does not say.

    ``dst`` is a network with its prefix or a host name, ``dstports`` a range, ``expire`` seconds since the
    epoch after which the rule is no more.
    """

    action: str
    expire: int | None = None
    dst: str | None = None
    proto: str | None = None
    specialtarget: str | None = None
    dstports: tuple[int, int] | None = None
    icmptype: int | None = None
    comment: str | None = None

    @property
    def dst_kind(self) -> str:
        """``dst4``, ``dst6`` or ``dsthost``."""
        network = None if self.dst is None or "/" not in self.dst else ip_network(self.dst)
        if network is None:
            return "dsthost"
        return "dst4" if isinstance(network, IPv4Network) else "dst6"


ACCEPT_ALL = (Rule("accept"),)


def parse(untrusted_line: str) -> Rule:
    """The rule that a line of options stands for, separated by single spaces, a comment at its end.

    Raises:
        BadValue: it is no rule, and why.
    """
    untrusted_options, mark, untrusted_comment = f" {untrusted_line}".partition(" comment=")
    given: dict[str, str] = {}
    for untrusted_word in untrusted_options[1:].split(" "):
        untrusted_key, equals, untrusted_value = untrusted_word.partition("=")
        if not equals or untrusted_key not in _OPTIONS:
            raise BadValue(f"unknown option {_excerpt(untrusted_word)}")
        key = "dst" if untrusted_key in _TARGETS else untrusted_key
        if key in given:
            raise BadValue(f"option {key!r} is given twice")
        if _VALUE.fullmatch(untrusted_value) is None:
            raise BadValue(f"option {key!r} cannot be {_excerpt(untrusted_value)}")
        given[key] = untrusted_value
    if mark:
        given["comment"] = untrusted_comment
    return make(given)


def make(given: Mapping[str, str]) -> Rule:
    """The rule of these options, ``dst`` for the destination; ``BadValue`` where they make none."""
    if "action" not in given:
        raise BadValue("a rule needs action=accept or action=drop")
    rule = Rule(**{key: _PARSERS[key](untrusted_value) for key, untrusted_value in given.items()})
    if rule.dstports is not None and rule.proto not in ("tcp", "udp"):
        raise BadValue("dstports needs proto=tcp or proto=udp")
    if rule.icmptype is not None and rule.proto != "icmp":
        raise BadValue("icmptype needs proto=icmp")
    return rule


def line(rule: Rule) -> str:
    """The rule as it is told, its options in the order of the specification."""
    ports = rule.dstports
    values = {
        "action": rule.action,
        "expire": rule.expire,
        rule.dst_kind: rule.dst,
        "proto": rule.proto,
        "specialtarget": rule.specialtarget,
        "dstports": None if ports is None else f"{ports[0]}-{ports[1]}",
        "icmptype": rule.icmptype,
        "comment": rule.comment,
    }
    return " ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def _one_of(*words: str) -> Callable[[str], str]:
    def parsed(untrusted_value: str) -> str:
        if untrusted_value not in words:
            raise BadValue(f"expected {' or '.join(words)}, found {_excerpt(untrusted_value)}")
        return untrusted_value

    return parsed


def _destination(untrusted_value: str) -> str:
    try:
        network: IPv4Network | IPv6Network = ip_network(untrusted_value, strict=False)
    except ValueError:
        if "/" in untrusted_value or _HOST.fullmatch(untrusted_value) is None:
            raise BadValue(
                f"expected a network or the name of a host, found {_excerpt(untrusted_value)}"
            ) from None
        return untrusted_value
    address, _, prefix = untrusted_value.partition("/")
    if prefix and not prefix.isdecimal():
        raise BadValue(f"expected the length of a prefix, found {_excerpt(prefix)}")
    return f"{address}/{network.prefixlen}"


def _ports(untrusted_value: str) -> tuple[int, int]:
    found = _PORTS.fullmatch(untrusted_value)
    if found is None:
        raise BadValue(f"expected a port or a range of ports, found {_excerpt(untrusted_value)}")
    low, high = int(found[1]), int(found[2] or found[1])
    if not low <= high <= _MOST_PORT:
        raise BadValue(f"no range of ports: {low}-{high}")
    return low, high


def _number(most: int, digits: int) -> Callable[[str], int]:
    def parsed(untrusted_value: str) -> int:
        if not untrusted_value.isascii() or not untrusted_value.isdecimal() or len(untrusted_value) > digits:
            raise BadValue(f"expected a number, found {_excerpt(untrusted_value)}")
        if int(untrusted_value) > most:
            raise BadValue(f"expected a number up to {most}, found {_excerpt(untrusted_value)}")
        return int(untrusted_value)

    return parsed


def _comment(untrusted_value: str) -> str:
    if _COMMENT.fullmatch(untrusted_value) is None:
        raise BadValue("a comment is made of letters, digits, blanks and any of : ; , . / - _ [ ]")
    return untrusted_value


def _excerpt(untrusted_value: str) -> str:
    return ascii(untrusted_value[:64])


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "action": _one_of("accept", "drop"),
    "expire": _number(10**15, 15),
    "dst": _destination,
    "proto": _one_of("tcp", "udp", "icmp"),
    "specialtarget": _one_of("dns"),
    "dstports": _ports,
    "icmptype": _number(255, 3),
    "comment": _comment,
}
_OPTIONS = frozenset({*_PARSERS, *_TARGETS} - {"dst"})
if {field.name for field in fields(Rule)} != set(_PARSERS):
    raise AssertionError("each part of a rule has its parser")
