"""The names of policy files: in calls, in commands, and below the policy directory.

Everywhere here a policy file is told by its path below the policy directory, ``30-user.policy`` or
``include/team-a``.
"""

from __future__ import annotations

import re

from qubesd.errors import BadPolicyName

INCLUDE = "include/"
SUFFIX = ".policy"

LONGEST = 100
"""Characters of a file's name: what is made of it is the name of a file and of a tar's member, too."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_KEPT = re.compile(r"[0-9a-z_-][0-9a-z_.-]*\.policy|include/[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def file_of(untrusted_name: str, included: bool) -> str:
    """The file that a call means by its argument.

    Raises:
        BadPolicyName: it has no form of a name, or the loader would refuse a file of this name.
    """
    if not _NAME.fullmatch(untrusted_name) or len(untrusted_name) > LONGEST - len(SUFFIX):
        raise BadPolicyName("expected a name of 'A-Z', 'a-z', '0-9', '_' and '-', such as 30-user")
    file = f"{INCLUDE}{untrusted_name}" if included else f"{untrusted_name}{SUFFIX}"
    if not is_kept(file):
        raise BadPolicyName("capital letters are for included files: no policy with such a file would load")
    return file


def file_named(text: str) -> str:
    """The file that a command means by ``NAME`` or ``include/NAME``. Raises ``BadPolicyName``."""
    return file_of(text.removeprefix(INCLUDE), text.startswith(INCLUDE))


def shown(file: str) -> str:
    """A file as commands name it: ``30-user``, ``include/team-a``."""
    return file if file.startswith(INCLUDE) else file.removesuffix(SUFFIX)


def is_kept(untrusted_file: str) -> bool:
    """Whether a file of this path is part of what is edited, kept in the history and backed up."""
    return bool(_KEPT.fullmatch(untrusted_file)) and len(untrusted_file.rpartition("/")[2]) <= LONGEST
