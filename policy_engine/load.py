"""Files and includes → a policy, all or nothing (policy language, sections 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from policy_engine.catalogue import Catalogue
from policy_engine.delegation import DelegationRule
from policy_engine.errors import ClosedFrame, PolicyError
from policy_engine.loading import Loading, Reading
from policy_engine.parse import Fields
from policy_engine.policy import Policy
from policy_engine.read import Origin, Refuse, stop
from policy_engine.source import DirectorySource, PolicySource

RUNTIME = "/run/qubes/policy.d"
CONFIGURED = "/etc/qubes/policy.d"
LEGACY = "/etc/qubes-rpc/policy"


@dataclass(frozen=True, slots=True)
class Examination:
    """All that is wrong with a policy's files, in order of loading.

    Attributes:
        errors: those that keep it from loading or close a frame.
        closed: the frames of missing files, and of those that are beyond a bound; of what is wrong within the
            lines of others ``errors`` tells alone.
        framed: the files that a frame asks for, links resolved.
        ended: whether all was looked at; a bound ends the examination.
    """

    errors: tuple[PolicyError, ...]
    closed: tuple[ClosedFrame, ...]
    framed: frozenset[str]
    ended: bool


class Loader:
    """Loads a policy, again and again: what did not change since the last time is not read anew.

    Args:
        directories: the policy directories, the one of highest precedence first.
        legacy: the directory that ``!compat-4.0`` reads.
        catalogue: makes the calls of the Admin API known to the delegation dialect, when the first file is in
            it; ``None`` where that dialect is refused.

    Not to be shared between threads.
    """

    def __init__(
        self,
        source: PolicySource,
        directories: Sequence[str] = (RUNTIME, CONFIGURED),
        legacy: str = LEGACY,
        catalogue: Callable[[], Catalogue] | None = None,
    ) -> None:
        self._catalogue = None if catalogue is None else cache(catalogue)
        self._source = source
        self._directories = tuple(directories)
        self._legacy = legacy
        self._fields = Fields()
        self._known: dict[Origin, Reading] = {}

    def load(self) -> Policy:
        """The policy as the files are now.

        Raises:
            PolicyError: the first error in order of loading.
        """
        loading = self._loading(self._known, stop, _pass_over)
        try:
            loading.top_level(self._directories)
        except PolicyError:
            # Keep what is good of both, so that the repaired policy is loaded as quickly.
            self._known = {**self._known, **loading.readings}
            raise
        self._known = loading.readings
        delegates = any(isinstance(rule, DelegationRule) for rule in loading.rules)
        return Policy(
            loading.rules,
            loading.files,
            loading.warnings,
            loading.digest.hexdigest(),
            self._catalogue() if delegates and self._catalogue is not None else None,
            loading.limits,
            loading.closed,
        )

    def check(self) -> list[PolicyError]:
        """All that is wrong with the files as they are now, in order of loading; nothing where they load and
        no frame is closed."""
        return list(self.examine().errors)

    def examine(self) -> Examination:
        """The same, and which frames there are.

        After an error the rest is read as if what was wrong were not there. An error in a file that is
        included several times is told once.
        """
        found: dict[str, PolicyError] = {}

        def note(error: PolicyError) -> None:
            found.setdefault(str(error), error)

        # What is known was read without an error.
        loading = self._loading(self._known, note, note)
        ended = True
        try:
            loading.top_level(self._directories)
        except PolicyError as error:  # a bound was reached, and there is no going on
            note(error)
            ended = False
        return Examination(tuple(found.values()), tuple(loading.closed), loading.framed, ended)

    def _loading(self, known: dict[Origin, Reading], refuse: Refuse, tell: Refuse) -> Loading:
        return Loading(self._source, self._legacy, self._fields, known, refuse, tell, self._catalogue)


def load(
    source: PolicySource | None = None,
    directories: Sequence[str] = (RUNTIME, CONFIGURED),
    legacy: str = LEGACY,
    catalogue: Callable[[], Catalogue] | None = None,
) -> Policy:
    """The policy of these directories, by default from real files. Raises ``PolicyError``."""
    return Loader(source or DirectorySource(), directories, legacy, catalogue).load()


def _pass_over(error: PolicyError) -> None:
    """The ``Refuse`` of errors that are dealt with in another way."""
