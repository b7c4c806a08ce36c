"""What the kernel grants one process."""

import resource


def raise_descriptor_limit() -> None:
    """Each qube and each caller has a socket of its own, and the soft limit is often 1,024 for the sake of
    ``select``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
