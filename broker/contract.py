"""What a method of the table declares of its calls, held against one call."""

from __future__ import annotations

from collections.abc import Mapping

from qubesd.api.call import Call
from qubesd.api.method import Destination, Method, Need
from qubesd.errors import ProtocolError
from qubesd.model.state import Klass, Qube

Methods = Mapping[str, Method]


def check_contract(methods: Methods, call: Call, target: Qube) -> Method:
    """The method of a call that keeps what the method declares, checked in the order of stock.

    Raises:
        ProtocolError: unknown method; payload, argument or destination is not as declared.
    """
    method = methods.get(call.service)
    if method is None:
        raise ProtocolError(f"no such method: {call.service[:64]!r}")
    _check_need("payload", method.payload, bool(call.payload))
    _check_need("argument", method.argument, bool(call.argument))
    if method.destination is not Destination.ANY:
        is_dom0 = target.klass is Klass.ADMIN
        if is_dom0 is not (method.destination is Destination.DOM0):
            raise ProtocolError(
                "this call is made to dom0 only" if not is_dom0 else "this call is not made to dom0"
            )
    return method


def judged_service(methods: Methods, call: Call) -> str:
    """The service that the policy is asked for."""
    method = methods.get(call.service)
    return call.service if method is None or method.judged_as is None else method.judged_as(call)


def _check_need(what: str, need: Need, given: bool) -> None:
    if given and need is Need.FORBIDDEN:
        raise ProtocolError(f"unexpected {what}")
    if not given and need is Need.REQUIRED:
        raise ProtocolError(f"missing {what}")
