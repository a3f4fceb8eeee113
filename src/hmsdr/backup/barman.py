"""Barman's cloud tools, run as programs: a base backup, its restore, what may be deleted. Nothing of Barman is imported.

They take keys from their environment only, speak UTC, and end within a deadline. What they say comes back in our words.
"""

from __future__ import annotations

import ast
import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hmsdr.control.archive import Archive, program
from hmsdr.errors import FailedError
from hmsdr.playbook.topology import PostgresInstance


class Barman:
    """The tools, for one bucket.

    Args:
        archive: the bucket, its prefix, keys.
        prefix: comes before each command: to run it as another user.
    """

    def __init__(self, archive: Archive, prefix: Sequence[str] = ()) -> None:
        self._archive = archive
        self._prefix = tuple(prefix)

    async def backup(self, instance: PostgresInstance, *, host: str, deadline: float) -> None:
        """Make a base backup of a server whose files are on this machine.

        Raises:
            FailedError: it was not made; Barman's last words are in the text.
        """
        options = [*self._archive.base_options, "--immediate-checkpoint"]
        options += ["-h", host, "-p", str(instance.port), "-U", instance.user, "-d", "postgres"]
        password = instance.password
        more = {} if password is None else {"PGPASSWORD": password.get_secret_value()}
        where = [self._archive.url, self._archive.server]
        await self._run("barman-cloud-backup", [*options, *where], deadline, more)

    async def restore(
        self, backup: str, directory: Path, *, tablespaces: Mapping[str, Path], deadline: float
    ) -> None:
        """Unpack a base backup into `directory`, which is empty or not there, and its tablespaces by name elsewhere.

        Raises:
            FailedError: it was not restored.
        """
        moved = [f"--tablespace={name}:{place}" for name, place in tablespaces.items()]
        options = [*self._endpoint, *moved, self._archive.url, self._archive.server, backup, str(directory)]
        await self._run("barman-cloud-restore", options, deadline)

    async def expire(self, days: int, at_least: int, *, deadline: float) -> None:
        """Delete backups, and the WAL that only they need, that no point in time within `days` needs."""
        policy = ["-r", f"RECOVERY WINDOW OF {days} DAYS", "-m", str(at_least)]
        where = [self._archive.url, self._archive.server]
        await self._run("barman-cloud-backup-delete", [*self._endpoint, *policy, *where], deadline)

    @property
    def _endpoint(self) -> list[str]:
        return [] if self._archive.endpoint is None else ["--endpoint-url", self._archive.endpoint]

    async def _run(
        self, name: str, arguments: list[str], deadline: float, more: dict[str, str] | None = None
    ) -> str:
        command = [*self._prefix, program(name), *arguments]
        environment = {**os.environ, **self._archive.environment, **(more or {}), "TZ": "UTC", "LC_ALL": "C"}
        doing = f"running {name} for {self._archive.url}/{self._archive.server}"
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(deadline):
                output, errors = await process.communicate()
        except BaseException as error:
            _end(process)
            if isinstance(error, TimeoutError):
                raise FailedError(
                    doing, f"it did not end within {deadline:g} s", "Look at the object store"
                ) from error
            raise
        if process.returncode != 0:
            said = errors.decode(errors="replace").strip().splitlines()[-2:]
            raise FailedError(
                doing,
                " | ".join(said) or f"it ended with {process.returncode}",
                "See what it says; try again",
            )
        return output.decode(errors="replace")


def backup_info(text: str) -> dict[str, str]:
    """What Barman's own note of a backup (``backup.info``) says, field by field, as text."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, mark, value in pairs if mark}


def tablespaces(note: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the tablespaces of a backup.

    Raises:
        ValueError: the note says something else there.
    """
    found = ast.literal_eval(note.get("tablespaces", "None"))
    return tuple(str(name) for name, *_ in found or ())


def _end(process: asyncio.subprocess.Process) -> None:
    """It has workers of its own: all of its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, 9)
