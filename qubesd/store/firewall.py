"""``firewall.xml`` in the directory of a qube (``spec/qubes-xml.md`` 2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network

from lxml import etree

from qubesd.errors import BadValue, QubeError
from qubesd.model.firewall import Rule, make
from qubesd.store.elements import Misread, children, closed_parser, named_texts, parts

_MOST = 4 << 20
"""Bytes; no client can set as many rules."""
_OPPOSITE = {"allow": "drop", "deny": "accept"}


def load(data: bytes, where: str) -> list[Rule]:
    """The rules of a file; ``QubeError`` where it is none that we know, naming ``where``."""
    try:
        if len(data) > _MOST:
            raise BadValue("too long")
        root = etree.fromstring(data, closed_parser())
        if root.getroottree().docinfo.internalDTD is not None:
            raise BadValue("a document type is not accepted")
        version = root.get("version", "1")
        if version == "2":
            return [_rule(element) for element in children(parts(root, "rules").get("rules"), "rule")]
        if version == "1":
            return list(_old_rules(root))
        raise BadValue(f"version {version[:16]!r} is not known")
    except Misread as error:
        what = f"line {error.line}: {error}"
        raise QubeError(f"{where}: no firewall rules can be read: {what}; mend or remove it") from error
    except (etree.XMLSyntaxError, BadValue, ValueError) as error:
        raise QubeError(f"{where}: no firewall rules can be read: {error}; mend or remove it") from error


def dump(rules: Iterable[Rule]) -> bytes:
    """The file for these rules."""
    root = etree.Element("firewall", version="2")
    holder = etree.SubElement(root, "rules")
    for rule in rules:
        properties = etree.SubElement(etree.SubElement(holder, "rule"), "properties")
        for name, value in _stored(rule).items():
            etree.SubElement(properties, "property", name=name).text = value
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)


def _rule(element: etree._Element) -> Rule:
    """What is not understood of a rule might narrow it, so nothing is passed over."""
    values = named_texts(parts(element, "properties").get("properties"), "property")
    known = {("dst" if name == "dsthost" else name): value for name, value in values.items()}
    unknown = known.keys() - set(Rule.__dataclass_fields__)
    if unknown:
        raise BadValue(f"unknown property {min(unknown)[:64]!r}")
    return make(known)


def _stored(rule: Rule) -> Mapping[str, str]:
    """What stands in the file, in its order; a single port without a range."""
    ports = rule.dstports
    port_text = None if ports is None else str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"
    values = {
        "action": rule.action,
        "comment": rule.comment,
        "expire": rule.expire,
        "dsthost": rule.dst,
        "proto": rule.proto,
        "specialtarget": rule.specialtarget,
        "dstports": port_text,
        "icmptype": rule.icmptype,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _old_rules(root: etree._Element) -> Iterator[Rule]:
    """The rules of the format before version 2; what it does not say of dns and icmp is as the policy."""
    policy = root.get("policy", "")
    action = _OPPOSITE.get(policy)
    if action is None:
        raise BadValue(f"policy {policy[:16]!r} is not known")
    for name, special in (("dns", {"specialtarget": "dns"}), ("icmp", {"proto": "icmp"})):
        yield make({"action": "accept" if root.get(name, policy) == "allow" else "drop", **special})
    for element in root:
        if isinstance(element.tag, str):
            yield _old_rule(element, action)
    if policy == "allow":
        yield Rule("accept")


def _old_rule(element: etree._Element, action: str) -> Rule:
    values = {"action": action}
    address, mask = element.get("address"), element.get("netmask")
    if address:
        values["dst"] = address if not mask else str(ip_network(f"{address}/{mask}", strict=False))
    port, proto = element.get("port"), element.get("proto", "any")
    if port:
        values["dstports"] = f"{port}-{element.get('toport') or port}"
        proto = "tcp" if proto == "any" else proto
    if proto != "any":
        values["proto"] = proto
    if element.get("expire"):
        values["expire"] = str(element.get("expire"))
    return make(values)
