"""The plain verbs on policy files: list, print, set, remove."""

from __future__ import annotations

import argparse
import sys

from broker.authoring.desk import Desk
from broker.described import ToolError
from broker.editing.edits import ANY_TOKEN, NEW_TOKEN
from broker.editing.names import INCLUDE, file_named
from qubesd.errors import BadPolicyName, NoSuchPolicyFile


def is_stock(options: argparse.Namespace) -> bool:
    """Whether an option of the stock program says what to do."""
    return any(one is not None for one in (options.list, options.get, options.replace, options.remove))


def stock(options: argparse.Namespace, desk: Desk) -> int:
    """What the options of the stock program ask for; without one, the list."""
    if options.get is not None:
        return get(desk, options.get)
    if options.replace is not None:
        return replace(desk, options.replace, sys.stdin.buffer.read(), ANY_TOKEN)
    if options.remove is not None:
        return remove(desk, options.remove, ANY_TOKEN)
    return names(desk, options.list or "")


def names(desk: Desk, folder: str) -> int:
    if folder not in ("", INCLUDE):
        raise BadPolicyName(f"the list is of all files, or of those in {INCLUDE}")
    for name in desk.names(folder == INCLUDE):
        print(name)
    return 0


def get(desk: Desk, name: str, with_token: bool = False) -> int:
    token, content = desk.get(file_named(name))
    if token == NEW_TOKEN:
        raise NoSuchPolicyFile("there is no such file")
    sys.stdout.flush()
    sys.stdout.buffer.write((f"{token}\n".encode() if with_token else b"") + content)
    sys.stdout.buffer.flush()
    return 0


def replace(desk: Desk, name: str, content: bytes, token: str) -> int:
    desk.replace(file_named(name), token, content)
    return 0


def remove(desk: Desk, name: str, token: str) -> int:
    desk.remove(file_named(name), token)
    return 0


def content_of(options: argparse.Namespace) -> bytes:
    """What is to be the content. Raises ``ToolError`` where the file cannot be read."""
    if options.source is None:
        return sys.stdin.buffer.read()
    try:
        content: bytes = options.source.read_bytes()
    except OSError as error:
        raise ToolError(f"{options.source}: {error.strerror}") from error
    return content
