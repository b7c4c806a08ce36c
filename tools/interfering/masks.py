"""What of an answer may differ between two daemons that do the same: as little as can be, each with why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_CONTENT = b"0\0"
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DISPOSABLE = re.compile(rb"disp[0-9]+")
_TOKEN = re.compile(rb"(?<=\A0\0)[A-Za-z0-9]{32}\Z")
_DRAWN = {
    "qid": "drawn at random for what others than dom0 make",
    "dispid": "so is that of disposables",
    **dict.fromkeys(("ip", "ip6", "gateway", "gateway6"), "follow from the qid"),
    **dict.fromkeys(("visible_ip", "visible_ip6"), "so does what the qube itself sees"),
    **dict.fromkeys(("visible_gateway", "visible_gateway6"), "and that of its netvm"),
    "xid": "the hypervisor's count of all domains: a declared channel",
    "start_time": "the clock",
}
_PROPERTIES = "|".join(_DRAWN).encode("ascii")
_IN_LIST = re.compile(rb"^((?:0\0)?(?:%s) default=\w+ type=\w+) .*$" % _PROPERTIES, re.MULTILINE)
_ALONE = re.compile(rb"(\A0\0(?:default=\w+ )?type=\w+ ).*\Z", re.DOTALL)
_EVENT = re.compile(rb"\0property-[a-z-]+:(?:%s)\0(?:[^\0]+\0[^\0]*\0)*" % _PROPERTIES)
_VALUE = re.compile(rb"(\0(?:old|new)value\0)[^\0]*")
"""In an event of such a property."""
_FIGURES = (
    (re.compile(rb"(cputime=)[0-9]+"), "the hypervisor's clock"),
    (re.compile(rb"(cpu_time\0)[0-9]+"), "the same in statistics"),
    (re.compile(rb"(cpu_usage\0)[0-9]+"), "and what follows from it"),
    (
        re.compile(rb"^((?:0\0)?(?:data_)?usage=)[0-9]+", re.MULTILINE),
        "of a pool: the space of both is on one disk",
    ),
)


class Masks:
    """The masks of one daemon, which remember what was drawn so that it can be told apart and recognized.

    ``names`` are the uuids of its qubes and what they are called.
    """

    def __init__(self, root: Path) -> None:
        self._root = bytes(root)
        self._drawn: dict[bytes, bytes] = {}
        self.names: dict[bytes, bytes] = {}

    def knows(self, data: bytes) -> bool:
        """Whether every uuid in it is that of a qube which was met."""
        return all(uuid in self.names for uuid in _UUID.findall(data))

    def disposable(self, name: bytes) -> None:
        """Number a disposable that was just made, before a list has it in the order of its random name."""
        self._numbered(name)

    def plain(self, data: bytes, asked: str = "", values: Mapping[str, str] = _DRAWN) -> bytes:
        """``asked`` is the property that the call asked for, if it did."""
        data = data.replace(self._root, b"/root")
        data = _UUID.sub(self._named, data)
        data = _TOKEN.sub(lambda found: self._numbered(found[0]), data)
        if asked in values:
            data = _ALONE.sub(rb"\1<drawn>", data)
        data = _IN_LIST.sub(rb"\1 <drawn>", data)
        data = _EVENT.sub(lambda event: _VALUE.sub(rb"\1<drawn>", event[0]), data)
        for pattern, _ in _FIGURES:
            data = pattern.sub(rb"\1<left out>", data)
        drawn = set(_DISPOSABLE.findall(data))
        data = _DISPOSABLE.sub(lambda found: self._numbered(found[0]), data)
        if drawn and data.startswith(_CONTENT):
            # Rows come in the order of the names, and those of disposables are drawn.
            return _CONTENT + b"\n".join(sorted(data.removeprefix(_CONTENT).split(b"\n")))
        return data

    def _named(self, found: re.Match[bytes]) -> bytes:
        name = self.names.get(found[0])
        return self._numbered(found[0]) if name is None else b"<uuid of %s>" % name

    def _numbered(self, drawn: bytes) -> bytes:
        return self._drawn.setdefault(drawn, b"<%d>" % len(self._drawn))
