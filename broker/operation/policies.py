"""What the doctor sees of the policy: whether its files load, and the old form."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from broker.catalogue import catalogue
from broker.operation.finding import Finding, error, ok, warning
from policy_engine import DirectorySource, Loader, PolicyError
from qubesd.config import Config


def policy(config: Config) -> Iterator[Finding]:
    """Whether the files load as they are now, whatever is in force."""
    directories = (str(config.policy_runtime), str(config.policy_dir))
    enforced = partial(catalogue, not config.trust_qrexec_consent)
    try:
        loaded = Loader(DirectorySource(), directories, str(config.policy_legacy), enforced).load()
    except PolicyError as problem:
        yield error("policy", str(problem), "qubes-policy check")
        return
    yield ok("policy", f"{len(loaded.rules)} rules in {len(loaded.files)} files")
    for told in loaded.warnings:
        yield warning("policy", str(told), "qubes-policy-lint")
    yield from _legacy(config, any(str(config.policy_legacy) in file for file in loaded.files))


def _legacy(config: Config, read: bool) -> Iterator[Finding]:
    try:
        files = sorted(file.name for file in config.policy_legacy.iterdir() if file.is_file())
    except OSError:
        files = []
    if files and not read:
        yield warning(
            "policy",
            f"{config.policy_legacy}: {len(files)} files in the old form, which nothing includes",
            "qrexec-legacy-convert, or a file with !compat-4.0",
        )
