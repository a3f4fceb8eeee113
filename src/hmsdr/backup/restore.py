"""Bringing a database back from its backups: beside what is there, verified, and only then in its place. It never comes up writable.

What was there before is kept under another name, for a person to remove. Whoever starts the restored directory gets a standby.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from hmsdr.backup.fetch import Choice, Fetcher, Target, choose, has_room
from hmsdr.backup.findings import Kind, UnfitError
from hmsdr.backup.scratch import Scratch
from hmsdr.backup.vault import Vault
from hmsdr.control import pgconf
from hmsdr.control.locks import lock_data_directory
from hmsdr.control.server import PostgresServer
from hmsdr.control.state import sync_directory
from hmsdr.decide.lsn import format_lsn
from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.postgres import Postgres
from hmsdr.drivers.s3 import ObjectStore
from hmsdr.errors import FailedError, RefusedError
from hmsdr.playbook.model import Playbook

REPLAY_SECONDS = 12 * 3600.0
_CHECK_SECONDS = 6 * 3600.0
_SYNC_SECONDS = 3600.0
_SQL_SECONDS = 5.0
_PROMOTE_SECONDS = 300.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done. ``replaced`` is where the old directory lies now; ``lsn`` in bytes of WAL."""

    backup: str
    bucket: str
    directory: Path
    replaced: Path | None
    lsn: int
    wal_files: int
    seconds: float


class Restorer:
    """Restores one region's database on this machine.

    Args:
        playbook: where backups lie.
        region: whose bucket is looked at first.
        objects: the object store.
        server: PostgreSQL's programs here; of the data directory that is to be replaced.
        say: told about progress.
    """

    def __init__(
        self, playbook: Playbook, region: str, objects: ObjectStore, server: PostgresServer, say: Say
    ) -> None:
        self._playbook = playbook
        self._region = region
        self._vault = Vault(objects, playbook, region)
        self._server = server
        self._fetcher = Fetcher(self._vault, playbook, region, server)
        self._say = say

    async def run(self, target: Target, *, wanted: str | None, into: Path | None) -> Restored:
        """Restore into the place of the data directory, or `into` another one that does not exist yet.

        Raises:
            RefusedError: the database runs, an agent keeps it, or a target is given without `into`.
            UnfitError: the backup is not fit; nothing was changed.
            FailedError: it could not be done; what was there is there.
        """
        data = self._server.directory
        doing = f"restoring {f'backup {wanted}' if wanted else 'the newest backup'} to {into or data}"
        if into is None and (target.lsn is not None or target.time is not None):
            raise RefusedError(
                doing,
                "a point in the past was asked for, and a standby would go on from there to the present",
                "Name another directory with --into, and look at it first",
            )
        goal = data if into is None else into.absolute()
        if not goal.parent.is_dir():
            raise RefusedError(doing, f"{goal.parent} is no directory", "Make it, or name another")
        lock = lock_data_directory(goal, "restore")
        try:
            await self._may(doing, goal, replaces=into is None)
            return await self._restore(doing, target, wanted, goal)
        finally:
            os.close(lock)

    async def _may(self, doing: str, goal: Path, *, replaces: bool) -> None:
        if replaces and self._server.processes():
            raise RefusedError(
                doing, "the database there runs", "Stop its agent first; it stops the database"
            )
        if not replaces and goal.exists():
            raise RefusedError(doing, "the directory exists", "Name one that does not")

    async def _restore(self, doing: str, target: Target, wanted: str | None, goal: Path) -> Restored:
        began = time.monotonic()
        scratch = Scratch(self._server, goal.with_name(f".{goal.name}.hmsdr-restore"))
        try:
            choice, lsn = await self.stage(doing, scratch, target, wanted, room_in=goal.parent)
            replaced = await asyncio.to_thread(_swap, scratch.data, goal)
        finally:
            await scratch.remove()
        took = time.monotonic() - began
        return Restored(
            choice.record.id, choice.bucket, goal, replaced, lsn, len(choice.chain.files), round(took, 1)
        )

    async def stage(
        self,
        doing: str,
        scratch: Scratch,
        target: Target,
        wanted: str | None,
        *,
        room_in: Path,
        histories: Mapping[int, str] = MappingProxyType({}),
        total: Callable[[int], None] = lambda _: None,
    ) -> tuple[Choice, int]:
        """Have `scratch` hold the restored database, stopped: replayed, every page checked, on disk, a standby.

        Args:
            doing: in words.
            scratch: emptied first; on failure the caller removes it.
            target: where to go.
            wanted: a backup's id; None: the newest that leads there.
            room_in: directory whose free space is looked at beforehand.
            histories: of timelines, which the archive need not have.
            total: told how many bytes are going to lie there.

        Raises:
            UnfitError: the backup is not fit.
            FailedError: it could not be done.
        """
        shelves, problems = await self._vault.shelves()
        if not shelves:
            raise next(iter(problems.values()))
        known = {**await self._vault.histories(shelves), **histories}
        choice = choose(shelves, known, target, wanted=wanted)
        await self._is_ours(doing, choice)
        await self._no_tablespaces(doing, choice)
        has_room(doing, room_in, choice.room)
        await scratch.clear()
        total(choice.record.unpacked + len(choice.chain.files) * choice.record.segment)
        self._say(f"reading backup {choice.record.id} in {choice.bucket}")
        await self._fetcher.check(choice)
        self._say(f"unpacking {choice.record.unpacked >> 20} MiB")
        await self._fetcher.unpack(choice, scratch.data)
        self._say(f"replaying {len(choice.chain.files)} files of WAL")
        given = {f"{timeline:08X}.history": text for timeline, text in histories.items() if text}
        await self._fetcher.fetch_wal(choice, shelves, scratch.wal, given)
        live = target.lsn is None and target.time is None
        await scratch.start(choice, stay_standby=live, deadline=REPLAY_SECONDS)
        lsn = await scratch.replayed()
        if not live:
            # Else whoever starts it would replay what it has of the time after: it gets a timeline of its own.
            await scratch.promote(deadline=_PROMOTE_SECONDS)
        await scratch.stop()
        self._say(f"checking every page, at {format_lsn(lsn)}")
        await self._check(doing, scratch)
        await self._settle(scratch)
        return choice, lsn

    async def _is_ours(self, doing: str, choice: Choice) -> None:
        """The backup must be of the hospital's database: what is here, or what runs in the other region, says which that is."""
        known: dict[str, int] = {}
        if self._server.exists:
            try:
                known[f"{self._server.directory}"] = (await self._server.control()).system_identifier
            except FailedError as error:
                self._say(f"what is there cannot say which database it is: {error.found}")
        for name, region in self._playbook.regions.items():
            try:
                known[f"the server of {name}"] = await Postgres(region.postgres).system_identifier(
                    deadline=_SQL_SECONDS
                )
            except DriverError:
                continue
        for where, system in known.items():
            if system != choice.record.system_identifier:
                words = f"the backup is of system {choice.record.system_identifier}, {where} is {system}"
                raise UnfitError(doing, Kind.SYSTEM, words)

    async def _no_tablespaces(self, doing: str, choice: Choice) -> None:
        if names := await self._fetcher.tablespaces(choice):
            raise RefusedError(
                doing,
                f"the backup has tablespaces ({', '.join(names)}), and nobody said where they should go",
                "Use barman-cloud-restore with --tablespace NAME:LOCATION, then start the agent",
            )

    async def _check(self, doing: str, scratch: Scratch) -> None:
        """Every page's checksum; what is no page's business was found by replaying."""
        restored = self._server.beside(scratch.data)
        try:
            status, output, errors = await restored.tool(
                "pg_checksums", "--check", "-D", scratch.data, deadline=_CHECK_SECONDS
            )
        except TimeoutError as error:
            raise FailedError(doing, f"not checked within {_CHECK_SECONDS:g} s", "Try again") from error
        said = (errors or output).strip()
        if status != 0 and "checksums are not enabled" not in said:
            raise UnfitError(doing, Kind.DAMAGE, said.splitlines()[0] if said else "pg_checksums failed")

    async def _settle(self, scratch: Scratch) -> None:
        """No scratch server any more: what is there is a standby's directory, on disk."""
        scratch.make_ordinary()
        pgconf.make_standby(scratch.data)
        restored = self._server.beside(scratch.data)
        restored.unprivileged.own(scratch.data)
        status, _, errors = await restored.tool(
            "initdb", "--sync-only", "-D", scratch.data, deadline=_SYNC_SECONDS
        )
        if status != 0:
            raise FailedError(f"syncing {scratch.data} to disk", errors.strip(), "See the disk; try again")


def _swap(restored: Path, goal: Path) -> Path | None:
    """Nothing is overwritten: the old directory is renamed, the new one takes its name."""
    kept = None
    if goal.exists():
        kept = goal.with_name(f"{goal.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
        goal.rename(kept)
    try:
        restored.rename(goal)
    except OSError:
        if kept is not None:
            kept.rename(goal)
        raise
    sync_directory(goal.parent)
    return kept
