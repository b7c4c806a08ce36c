"""Addresses that follow from a qube's place in the network, and who may be whose netvm (``spec/domains.md``
3)."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address

from qubesd.errors import BadPropertyValue, BadValue, QubeNotStarted
from qubesd.model import features
from qubesd.model.lineage import follows_default_netvm, netvm_of, netvms, own
from qubesd.model.references import local
from qubesd.model.state import Klass, Qube, Value
from qubesd.model.view import View

_DNS = "10.139.1.1 10.139.1.2"
NETMASK = "255.255.255.255"
_PREFIX6 = "fd09:24ef:4179::"


def provides_network(qube: Qube) -> bool:
    """Whether other qubes can have this one as netvm; dom0 and a RemoteVM never."""
    return qube.properties.get("provides_network") is True


def is_networked(view: View, qube: Qube) -> bool:
    """Whether the qube has addresses at all."""
    return provides_network(qube) or netvm_of(view.system, qube) is not None


def ip(view: View, qube: Qube) -> Value:
    """By qid below 10.137, for a disposable by dispid below 10.138; ``None`` without network."""
    if not is_networked(view, qube):
        return None
    if qube.dispid is None:
        return _numbered("10.137", qube.qid)
    return _numbered("10.138", qube.dispid)


def ip6(view: View, qube: Qube) -> Value:
    """The same for IPv6, only where the feature ``ipv6`` is true along the netvms."""
    if not is_networked(view, qube) or not features.with_netvm(view, qube, "ipv6"):
        return None
    if qube.dispid is None:
        return f"{_PREFIX6}a89:{qube.qid:x}"
    return f"{_PREFIX6}a8a:{qube.dispid:x}"


def dns(view: View, qube: Qube) -> Value:
    return _DNS if is_networked(view, qube) else None


def gateway(view: View, qube: Qube) -> Value:
    """What the qubes behind this one have as gateway."""
    return visible_ip(view, qube) if provides_network(qube) else None


def gateway6(view: View, qube: Qube) -> Value:
    if not provides_network(qube) or not features.with_netvm(view, qube, "ipv6"):
        return None
    return visible_ip6(view, qube)


def visible_ip(view: View, qube: Qube) -> Value:
    """The address that the qube itself sees."""
    return _faked(view, qube, "net.fake-ip") or own(view, qube, "ip", ip)


def visible_ip6(view: View, qube: Qube) -> Value:
    return own(view, qube, "ip6", ip6)


def visible_gateway(view: View, qube: Qube) -> Value:
    fake = _faked(view, qube, "net.fake-gateway")
    return fake or _of_netvm(view, qube, gateway)


def visible_gateway6(view: View, qube: Qube) -> Value:
    if not features.with_netvm(view, qube, "ipv6"):
        return None
    return _of_netvm(view, qube, gateway6)


def visible_netmask(view: View, qube: Qube) -> Value:
    fake = _faked(view, qube, "net.fake-netmask")
    return fake or (NETMASK if netvm_of(view.system, qube) is not None else None)


def netvm_fits(view: View, owner: Qube, value: str | None) -> Value:
    """A netvm gives network, is not behind this qube itself, and runs where this qube does."""
    if value is None:
        return None
    netvm = local(view, value)
    if netvm.klass is Klass.ADMIN:
        raise BadPropertyValue(f"{value!r} cannot be a netvm")
    if not provides_network(netvm):
        raise BadValue(f"qube {value!r} does not provide network")
    if any(step.name == owner.name for step in netvms(view.system, netvm)):
        raise BadValue(f"with netvm {value!r} qube {owner.name!r} would be behind itself")
    if view.running(owner.name).state != "Halted" and view.running(value).state == "Halted":
        raise QubeNotStarted(f"qube {owner.name!r} runs: start {value!r} before it becomes its netvm")
    return value


def provides_network_fits(view: View, owner: Qube, value: bool) -> Value:
    """Network cannot be withdrawn from under others, nor from under the global default."""
    if not value:
        netvms_in_use = (netvm_of(view.system, qube) for qube in view.system.qubes.values())
        used = any(netvm is not None and netvm.name == owner.name for netvm in netvms_in_use)
        if used or view.system.properties.get("default_netvm") == owner.name:
            raise BadValue(f"qube {owner.name!r} is in use as netvm")
    return value


def default_netvm_fits(view: View, owner: None, value: str | None) -> Value:
    """The default netvm gives network and does not itself follow the default, directly or along its
    netvms."""
    if value is None:
        return None
    netvm = local(view, value)
    if not provides_network(netvm):
        raise BadPropertyValue(f"qube {value!r} does not provide network")
    for step in netvms(view.system, netvm):
        if follows_default_netvm(step):
            raise BadPropertyValue(f"qube {step.name!r} would be behind itself: set its own netvm before")
    if view.running(value).state == "Halted":
        for qube in view.system.qubes.values():
            if follows_default_netvm(qube) and view.running(qube.name).state != "Halted":
                raise QubeNotStarted(f"qubes that follow the default run: start {value!r} before")
    return value


def _numbered(prefix: str, number: int) -> str:
    # The host part is never 255 nor 0 beyond the first block.
    if number < 255:
        return f"{prefix}.{number >> 8 & 255}.{number & 255}"
    return f"{prefix}.{(number - 1) // 254}.{(number - 1) % 254 + 1}"


def _faked(view: View, qube: Qube, feature: str) -> str | None:
    """The feature's text where it is an address; a qube's administrator may have written anything there."""
    text = features.with_template(view, qube, feature)
    if not text:
        return None
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        return None


def _of_netvm(view: View, qube: Qube, what: Callable[[View, Qube], Value]) -> Value:
    netvm = netvm_of(view.system, qube)
    return None if netvm is None else what(view, netvm)
