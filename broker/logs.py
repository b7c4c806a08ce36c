"""The lines of the daemon's log: of text, or of JSON for machines, each with the number of the call.

Whatever a qube could have chosen is in them, so nothing but printable ASCII goes out, and no message begins a
line of its own.
"""

from __future__ import annotations

import json
import logging
import sys
import time

from broker.call_id import CALL
from broker.saying import plain


def set_up(program: str, form: str) -> None:
    """Have the log go to standard error from now on, in this form: ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines(program))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


class TextLines(logging.Formatter):
    """``PROGRAM: LEVEL: call N: MESSAGE``; without the call where there is none. What broke off, and where,
    follows on lines that are indented."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        number = CALL.get()
        call = f"call {number}: " if number else ""
        line = f"{self._program}: {record.levelname}: {call}{plain(record.getMessage())}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).split("\n")
            line += "".join(f"\n  {plain(text)}" for text in trace)
        return line


class JsonLines(logging.Formatter):
    """One object a line: ``time`` in UTC, ``level``, ``logger``, ``call`` (``null`` outside of every call),
    ``message`` and, where something broke off, ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, str | int | None] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "call": CALL.get() or None,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # JSON lets DEL through, which a terminal may take for a control character.
        return json.dumps(line).replace("\x7f", "\\u007f")
