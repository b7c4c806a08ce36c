"""The hypervisor drivers by the name that the configuration gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qubesd.errors import NotSupported
from qubesd.virt.embedded import Embedded
from qubesd.virt.hypervisor import Hypervisor

DRIVERS: Mapping[str, Callable[[str], Hypervisor]] = {"test": Embedded}
"""Each makes an unopened driver for a libvirt URI."""


def make(driver: str, uri: str) -> Hypervisor:
    """The driver of that name, not opened yet.

    Raises:
        NotSupported: there is no driver of that name.
    """
    if driver not in DRIVERS:
        raise NotSupported(
            f"hypervisor: unknown driver {driver!r}, expected one of {', '.join(sorted(DRIVERS))}"
        )
    return DRIVERS[driver](uri)
