"""The system that a new installation begins with (``spec/qubes-xml.md`` 1.7)."""

from __future__ import annotations

from pathlib import Path

from qubesd.model.state import DOM0, DOM0_UUID, Klass, Label, PoolConfig, Qube, System

LABELS = tuple(
    Label(name, index, color)
    for index, (name, color) in enumerate(
        (
            ("red", "0xcc0000"),
            ("orange", "0xf57900"),
            ("yellow", "0xedd400"),
            ("green", "0x73d216"),
            ("gray", "0x555555"),
            ("blue", "0x3465a4"),
            ("purple", "0x75507b"),
            ("black", "0x000000"),
        ),
        start=1,
    )
)
"""The built-in labels, which cannot be removed."""

POOL = "varlibqubes"
KERNEL_POOL = "linux-kernel"


def fresh_system(qubes_dir: Path, kernels_dir: Path, driver: str = "file-reflink") -> System:
    """dom0, the built-in labels, a pool at ``qubes_dir`` and the pool of kernels at ``kernels_dir``.

    ``driver`` is that of the first pool: ``file-reflink`` where the file system can clone extents, else
    ``file``.
    """
    options = {"dir_path": str(qubes_dir), "revisions_to_keep": "1", "ephemeral_volatile": "False"}
    pools = (
        PoolConfig(POOL, driver, options),
        PoolConfig(KERNEL_POOL, "linux-kernel", {"dir_path": str(kernels_dir)}),
    )
    dom0 = Qube(DOM0, 0, DOM0_UUID, Klass.ADMIN, {"label": "black"})
    return System(
        labels={label.name: label for label in LABELS},
        pools={pool.name: pool for pool in pools},
        properties={"default_pool_kernel": KERNEL_POOL},
    ).with_qube(dom0)
