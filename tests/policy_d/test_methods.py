"""90-admin-default.policy agrees with the method table: each call goes to the grants of its own kind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from qubesd.api.method import Access, Method
from qubesd.api.table import INTERNAL, METHODS

POLICY = Path(__file__).parents[2] / "policy.d"


def sent() -> list[tuple[str, str, str]]:
    """Service, argument and include file of each line that sends a call somewhere."""
    text = (POLICY / "90-admin-default.policy").read_text(encoding="utf-8")
    words = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert {(len(line), line[0]) for line in words} == {(4, "!include-service")}
    return [(service, argument, file) for _, service, argument, file in words]


def grants_for(method: Method) -> str:
    kind = "ro" if method.access is Access.READ else "rwx"
    return f"include/admin-{method.scope.value}-{kind}"


@pytest.mark.parametrize("method", [pytest.param(method, id=name) for name, method in METHODS.items()])
def test_each_method_is_sent_to_the_grants_of_its_kind(method: Method) -> None:
    lines = [(argument, file) for service, argument, file in sent() if service == method.name]
    assert lines == [("*", grants_for(method))]


def test_no_call_is_sent_twice() -> None:
    assert {
        service: count for service, count in Counter(line[0] for line in sent()).items() if count > 1
    } == {}


def test_internal_calls_can_be_granted_to_nobody() -> None:
    assert {line[0] for line in sent()} & set(INTERNAL) == set()


def test_every_line_leads_to_a_shipped_file_of_grants_and_every_such_file_is_used() -> None:
    shipped = {f"include/{path.name}" for path in (POLICY / "include").glob("admin-*")}
    assert {file for _, _, file in sent()} == shipped
