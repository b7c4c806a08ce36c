"""The programs that archives are compressed with; those that restore know these and no others."""

from __future__ import annotations

from qubesd.errors import QubesError

FILTERS = ("gzip", "bzip2", "xz", "lzma", "pbzip2", "pigz", "zstd", "zstdmt")
"""Each compresses from standard input to standard output, and with ``-d`` the other way round."""

DEFAULT = "gzip"


def check_filter(name: str) -> str:
    """The name, where an archive may say it; ``QubesError`` otherwise."""
    if name not in FILTERS:
        raise QubesError(f"{name[:64]!r} compresses no backup: use one of {', '.join(FILTERS)}")
    return name


_BOUNDED = {
    "xz": ("--memlimit-decompress=512MiB",),
    "lzma": ("--memlimit-decompress=512MiB",),
    "zstd": ("--memory=512MB",),
    "zstdmt": ("--memory=512MB",),
}
"""What keeps a program from taking the memory that an archive asks for; the others know no such wish."""


def compress(name: str) -> list[str]:
    return [name, "-c"]


def decompress(name: str) -> list[str]:
    return [name, "-dc", *_BOUNDED.get(name, ())]
