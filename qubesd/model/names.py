"""What may be called what: the rules of identifiers (``spec/domains.md`` 2, ``spec/admin-calls.md`` 4 and 8).

Each ``check_`` function returns the text that it was given where it keeps the rule and raises otherwise, so
that a caller writes ``name = check_qube_name(untrusted_name)`` and has nothing unchecked left in hand.
"""

from __future__ import annotations

import re

from qubesd.errors import BadValue, InvalidLabel, InvalidLabelValue, InvalidTag, InvalidUuid, ProtocolError

MAX_QID = 10000
MAX_DISPID = 9999

_QUBE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,30}")
_NOT_QUBES = frozenset(("Domain-0", "none", "default"))
_STUB_DOMAIN = "-dm"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TAG = re.compile(r"[A-Za-z0-9_-]+")
_FEATURE = re.compile(r"[a-zA-Z0-9_.-]+")
_FEATURE_VALUE = re.compile(r"[\x20-\x7e]*")
_LABEL = re.compile(r"[A-Za-z0-9_.-]+")
_COLOR = re.compile(r"0x[0-9a-fA-F]{6}")


def is_qube_name(text: str) -> bool:
    """Whether a qube may have this name. A name that ends in ``-dm`` belongs to a stub domain."""
    return _QUBE.fullmatch(text) is not None and text not in _NOT_QUBES and not text.endswith(_STUB_DOMAIN)


def check_qube_name(untrusted_text: str) -> str:
    """The text, where it can name a qube; ``BadValue`` otherwise."""
    if not is_qube_name(untrusted_text):
        raise BadValue(
            f"{untrusted_text[:64]!r} is no name for a qube: use 1 to 31 letters, digits, '_', '.' and '-', "
            "first a letter"
        )
    return untrusted_text


def check_uuid(untrusted_text: str) -> str:
    """The text, where it is a uuid with dashes and in lower case; ``InvalidUuid`` otherwise."""
    if _UUID.fullmatch(untrusted_text) is None:
        raise InvalidUuid(f"{untrusted_text[:64]!r} is no uuid")
    return untrusted_text


def is_tag(text: str) -> bool:
    """Whether this can be a tag; a qube whose name has a ``.`` cannot be named in one."""
    return _TAG.fullmatch(text) is not None


def check_tag(untrusted_text: str) -> str:
    """The text, where it can be a tag; ``InvalidTag`` otherwise."""
    if not is_tag(untrusted_text):
        raise InvalidTag(f"{untrusted_text[:64]!r} is no tag: use letters, digits, '_' and '-'")
    return untrusted_text


def is_feature_name(text: str) -> bool:
    """Whether the API may set a feature of this name."""
    return _FEATURE.fullmatch(text) is not None


def check_feature_name(untrusted_text: str) -> str:
    """The text, where the API may set a feature of that name; ``ProtocolError`` otherwise."""
    if not is_feature_name(untrusted_text):
        raise ProtocolError(
            f"{untrusted_text[:64]!r} is no name for a feature: use letters, digits, '_', '.' and '-'"
        )
    return untrusted_text


def check_feature_value(untrusted_value: bytes) -> str:
    """The text of a feature as the API may set it, printable ASCII; ``ProtocolError`` otherwise."""
    untrusted_text = untrusted_value.decode("latin-1")
    if _FEATURE_VALUE.fullmatch(untrusted_text) is None:
        raise ProtocolError("a feature's value is printable ASCII on one line")
    return untrusted_text


def check_label_name(untrusted_text: str) -> str:
    """The text, where a label can have this name, a number standing for its index; ``InvalidLabel``
    otherwise."""
    if _LABEL.fullmatch(untrusted_text) is None:
        raise InvalidLabel(
            f"{untrusted_text[:64]!r} is no name for a label: use letters, digits, '_', '.' and '-'"
        )
    return untrusted_text


def check_new_label_name(untrusted_text: str) -> str:
    """As ``check_label_name``, and not a number only, which would be taken for an index."""
    text = check_label_name(untrusted_text)
    if text.isdigit():
        raise InvalidLabel(f"{text[:64]!r} is no name for a label: digits alone are an index")
    return text


def check_color(untrusted_text: str) -> str:
    """``0x`` and six hexadecimal digits; ``InvalidLabelValue`` otherwise."""
    if _COLOR.fullmatch(untrusted_text) is None:
        raise InvalidLabelValue(f"{untrusted_text[:64]!r} is no colour: write it as 0xrrggbb")
    return untrusted_text
