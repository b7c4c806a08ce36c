"""The coarse step: untrusted bytes become a value of a property's type, or ``BadValue``.

Nothing here looks at the system. Characters that XML cannot hold are refused here, so that no value can be
accepted that could not be made durable.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from qubesd.errors import BadValue
from qubesd.model.names import check_qube_name

_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,64}\s*", re.ASCII)
_INTEGERS = range(-(2**63), 2**63)
_TEXT = re.compile(r"[\x20-\x7e\t\n\r]*")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_WORDS = {
    **dict.fromkeys(("1", "yes", "true", "on"), True),
    **dict.fromkeys(("0", "no", "false", "off"), False),
}


def text(untrusted_value: bytes) -> str:
    """Printable ASCII with blanks, tabs and line ends."""
    untrusted_text = _ascii(untrusted_value)
    if _TEXT.fullmatch(untrusted_text) is None:
        raise BadValue("the value holds control characters")
    return untrusted_text


def integer(untrusted_value: bytes) -> int:
    """A decimal number of 64 bits; white space around it, a sign and leading zeros are accepted."""
    untrusted_text = _ascii(untrusted_value)
    if _INTEGER.fullmatch(untrusted_text) is None or (number := int(untrusted_text)) not in _INTEGERS:
        raise BadValue(f"expected a whole number, found {_excerpt(untrusted_value)}")
    return number


def boolean(untrusted_value: bytes) -> bool:
    """One of the words for true and false in any case, nothing around it."""
    try:
        return _WORDS[_ascii(untrusted_value).lower()]
    except KeyError:
        raise BadValue(f"expected True or False, found {_excerpt(untrusted_value)}") from None


def qube(untrusted_value: bytes) -> str | None:
    """The name of a qube, ``None`` for no bytes; whether there is one of that name is not looked at."""
    return check_qube_name(_ascii(untrusted_value)) if untrusted_value else None


def ipv4(untrusted_value: bytes) -> str:
    """An IPv4 address in its usual form."""
    try:
        return str(IPv4Address(_ascii(untrusted_value)))
    except AddressValueError:
        raise BadValue(f"expected an IPv4 address, found {_excerpt(untrusted_value)}") from None


def ipv6(untrusted_value: bytes) -> str:
    """An IPv6 address in its shortest form, without a zone."""
    try:
        address = IPv6Address(_ascii(untrusted_value))
    except AddressValueError:
        raise BadValue(f"expected an IPv6 address, found {_excerpt(untrusted_value)}") from None
    if address.scope_id is not None:
        raise BadValue(f"expected an IPv6 address without a zone, found {_excerpt(untrusted_value)}")
    return str(address)


def mac(untrusted_value: bytes) -> str:
    """Six pairs of hexadecimal digits with ``:``, in lower case."""
    lowered = _ascii(untrusted_value).lower()
    if _MAC.fullmatch(lowered) is None:
        raise BadValue(
            f"expected six pairs of digits such as 00:16:3e:5e:6c:00, found {_excerpt(untrusted_value)}"
        )
    return lowered


def _ascii(untrusted_value: bytes) -> str:
    try:
        return untrusted_value.decode("ascii")
    except UnicodeDecodeError:
        raise BadValue("the value is not ASCII") from None


def _excerpt(untrusted_value: bytes) -> str:
    return repr(untrusted_value[:64].decode("ascii", "backslashreplace"))
