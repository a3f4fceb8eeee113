"""Running PostgreSQL, which refuses root, when we are root. Decides how once; starts nothing itself.

In a user namespace of its own the server sees an ordinary user, while its files stay ours: nothing has to be
given away. Where namespaces are forbidden, it runs as a named user who then owns its directories.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hmsdr.errors import RefusedError

_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
_PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Unprivileged:
    """How to start a program without root's rights.

    ``prefix`` comes before its command. ``owner`` (user id, group id) must own its files; None: as they are.
    """

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None

    def command(self, *command: str | Path) -> list[str]:
        """`command` as it must be executed."""
        return [*self.prefix, *(str(part) for part in command)]

    def own(self, *directories: Path) -> None:
        """Give `directories`, with all in them, to the one that the programs run as."""
        if self.owner is None:
            return
        for directory in directories:
            os.chown(directory, *self.owner)
            for parent, names, files in os.walk(directory):
                for name in (*names, *files):
                    os.chown(Path(parent) / name, *self.owner, follow_symlinks=False)


def choose(run_as: str | None = None) -> Unprivileged:
    """The way that works here: as we are, in a user namespace, or as the user `run_as`.

    Raises:
        RefusedError: we are root and neither works.
    """
    if os.geteuid() != 0:
        return Unprivileged()
    if _namespaces_work():
        return Unprivileged(prefix=_NAMESPACE)
    doing = "choosing whom PostgreSQL runs as (it refuses root)"
    if run_as is None:
        raise RefusedError(
            doing, "user namespaces do not work here and no user is named", "Name one with --run-as"
        )
    try:
        user = pwd.getpwnam(run_as)
    except KeyError as error:
        raise RefusedError(doing, f"there is no user {run_as!r}", "Create it, or name another") from error
    if user.pw_uid == 0:
        raise RefusedError(doing, f"{run_as!r} is root", "Name an ordinary user")
    prefix = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--")
    return Unprivileged(prefix=prefix, owner=(user.pw_uid, user.pw_gid))


def _namespaces_work() -> bool:
    try:
        tried = subprocess.run(
            (*_NAMESPACE, "true"), capture_output=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0
