"""Trying a backup out: restored into a scratch server, replayed, checked, compared with the running database at one LSN.

It changes nothing of the hospital's but one thing: the primary is asked to end its present file of WAL, so that what was
written until now is on its way to the archive. What is wrong comes back as findings; errors are for what could not be tried.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from hmsdr.backup import compare
from hmsdr.backup.fetch import Choice, Fetcher, Target, chain_of, choose
from hmsdr.backup.findings import Finding, Kind, UnfitError
from hmsdr.backup.scratch import PORT, Scratch
from hmsdr.backup.vault import ASK_SECONDS, Shelf, Vault
from hmsdr.control.amcheck import judged
from hmsdr.control.server import PostgresServer
from hmsdr.decide import walchain
from hmsdr.decide.backups import BackupRecord, Trial, clock_problem, missing, newest
from hmsdr.decide.lsn import format_lsn
from hmsdr.decide.restoretime import Took, estimate, worst
from hmsdr.drivers.errors import DriverError, TemporaryError
from hmsdr.drivers.postgres import Postgres
from hmsdr.drivers.postgres_sums import Sum, sums
from hmsdr.drivers.s3 import ObjectStore
from hmsdr.errors import FailedError
from hmsdr.playbook.base import format_duration
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.topology import PostgresInstance

REPLAY_SECONDS = 6 * 3600.0
CHECK_SECONDS = 6 * 3600.0
_SQL_SECONDS = 10.0
_POLL_SECONDS = 0.5
_PROBE = "probe"
_LATE = 1.25
"""Times the interval, until a backup counts as missed."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Verdict:
    """What came of it. ``seconds`` by name of the phase; sums are of the tables that were compared."""

    region: str
    findings: list[Finding] = field(default_factory=list)
    backup: str | None = None
    bucket: str | None = None
    lsn: int | None = None
    wal_files: int = 0
    tables: dict[str, int] = field(default_factory=dict)
    """Rows of each table that is equal to the running database's."""
    compared: bool = False
    not_compared: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    tonight: timedelta | None = None
    """How long a restore would take now."""
    at_worst: timedelta | None = None
    """The same just before the next base backup."""
    archive_seconds: float | None = None
    """How long what was written just now needed to be in the archive."""

    def found(self, kind: Kind, words: str) -> None:
        """Note something that is wrong."""
        self.findings.append(Finding(kind, words))


class Verifier:
    """Tries backups of one region's database out.

    Args:
        playbook: where they lie, what is expected of them.
        region: whose database is (or was) the primary.
        objects: the object store.
        server: PostgreSQL's programs here.
        place: directory for the scratch server.
        say: told about progress.
    """

    def __init__(
        self,
        playbook: Playbook,
        region: str,
        objects: ObjectStore,
        server: PostgresServer,
        place: Path,
        say: Say,
    ) -> None:
        self._playbook = playbook
        self._region = region
        self._vault = Vault(objects, playbook, region)
        self._server = server
        self._fetcher = Fetcher(self._vault, playbook, region, server)
        self._scratch = Scratch(server, place)
        self._say = say
        self._verdict = Verdict(region)

    async def run(self, target: Target, *, wanted: str | None = None) -> Verdict:
        """Everything; the scratch server is gone afterwards.

        Args:
            target: where to go; none means as far as the running database is now, compared with it.
            wanted: the id of a backup; None means the newest that leads there.

        Raises:
            FailedError: it could not be tried.
        """
        verdict = self._verdict
        await self._clocks()
        live = target.lsn is None and target.time is None
        source = self._playbook.regions[self._playbook.other_region(self._region)].postgres
        try:
            if not live:
                verdict.not_compared = "a target in the past was asked for"
                await self._try(target, wanted, None)
            else:
                await self._try_live(source, wanted)
        except UnfitError as error:
            verdict.findings.append(error.finding)
        finally:
            await self._scratch.remove()
        if live and wanted is None:
            await self._noted(verdict)
        return verdict

    async def _try_live(self, source: PostgresInstance, wanted: str | None) -> None:
        """As far as the running database is now, compared with its standby if that answers."""
        try:
            self._say(f"adding up the tables of {source.instance} at one LSN")
            running = await compare.source_sums(source, deadline=CHECK_SECONDS)
        except TemporaryError as error:
            self._verdict.not_compared = str(error)
            await self._try(Target(), wanted, None)
            return
        self._verdict.not_compared = running.why
        await self._try(Target(lsn=running.lsn), wanted, running)

    async def _try(self, target: Target, wanted: str | None, source: compare.Source | None) -> None:
        verdict = self._verdict
        await self._scratch.clear()
        if target.time is None and (source is not None or target.lsn is None):
            await self._until_archived(None if source is None else source.lsn)
        shelves = await self._shelves()
        histories = await self._vault.histories(shelves)
        self._state_of(shelves, histories)
        choice = choose(shelves, histories, target, wanted=wanted)
        verdict.backup, verdict.bucket = choice.record.id, choice.bucket
        await self._is_ours(choice)
        verdict.wal_files = len(choice.chain.files)
        await self._restore(choice, shelves)
        verdict.lsn = await self._scratch.replayed()
        if source is not None and source.sums is not None:
            await self._compare(source.lsn, source.sums)
        await self._check()

    async def _noted(self, verdict: Verdict) -> None:
        """Remember in the buckets that it was tried: a trial that nobody makes any more is found by `backup list`."""
        seconds = None if verdict.tonight is None else verdict.tonight.total_seconds()
        trial = Trial(datetime.now(UTC), verdict.backup, not verdict.findings, seconds)
        await self._vault.write_trial(trial)

    async def _is_ours(self, choice: Choice) -> None:
        """A backup of another database restores well, and is of no use."""
        for name, region in self._playbook.regions.items():
            with suppress(DriverError):
                system = await Postgres(region.postgres).system_identifier(deadline=_SQL_SECONDS)
                if system != choice.record.system_identifier:
                    words = f"the backup is of system {choice.record.system_identifier}, the server of {name} is {system}"
                    raise UnfitError("comparing systems", Kind.SYSTEM, words)

    async def _clocks(self) -> None:
        """The machine's clock beside the database's and the object store's, in which a probe is written."""
        probe = f"{self._vault.prefix}{self._vault.server}/{_PROBE}"
        for bucket in self._vault.buckets:
            try:
                written = await self._vault.objects.put(bucket, probe, b"hmsdr\n", deadline=ASK_SECONDS)
                words = clock_problem(f"the object store ({bucket})", written.modified, datetime.now(UTC))
            except DriverError as error:
                self._verdict.found(Kind.STORE, f"nothing can be written to {bucket}: {error.found}")
                continue
            if words:
                self._verdict.found(Kind.CLOCK, f"{words} of this machine's")
        with suppress(DriverError):
            instance = self._playbook.regions[self._region].postgres
            told = await Postgres(instance).now(deadline=_SQL_SECONDS)
            if words := clock_problem(f"the database {instance.instance}", told, datetime.now(UTC)):
                self._verdict.found(Kind.CLOCK, f"{words} of this machine's")

    async def _until_archived(self, lsn: int | None) -> None:
        """What is written now must reach the bucket: the canary that finds an archive that only says that it works.

        `lsn` is what must be in it (bytes of WAL); None: all that is written by now.
        """
        instance = self._playbook.regions[self._region].postgres
        patience = self._playbook.backups.wal_late.total_seconds()
        began = time.monotonic()
        self._say("ending the present file of WAL, and waiting until it is in the archive")
        try:
            ended = await Postgres(instance).switch_wal(deadline=_SQL_SECONDS)
        except DriverError as error:
            self._verdict.found(
                Kind.LATE, f"the primary could not be asked to end its file of WAL: {error.found}"
            )
            return
        lsn = ended - 1 if lsn is None else lsn
        while True:
            reached = await self._archived_up_to()
            if reached > lsn:
                self._verdict.archive_seconds = round(time.monotonic() - began, 1)
                return
            if time.monotonic() - began > patience:
                words = (
                    f"what was written at {format_lsn(lsn)} is not in {self._vault.buckets[0]} after {patience:g} s; "
                    f"the archive ends at {format_lsn(reached)}"
                )
                raise UnfitError("waiting for the archive", Kind.LATE, words)
            await asyncio.sleep(_POLL_SECONDS)

    async def _archived_up_to(self) -> int:
        """The end of the newest file of WAL in the region's own bucket, whatever is before it."""
        shelf = await self._vault.shelf(self._vault.buckets[0])
        segment = max((record.segment for record in shelf.records), default=1 << 24)
        names = [name for name in shelf.wal if walchain.is_segment(name)]
        return max(((walchain.segment_number(name, segment) + 1) * segment for name in names), default=0)

    async def _shelves(self) -> list[Shelf]:
        shelves, problems = await self._vault.shelves()
        for bucket, error in problems.items():
            self._verdict.found(Kind.STORE, f"{bucket}: {error.found}")
        return shelves

    def _state_of(self, shelves: list[Shelf], histories: dict[int, str]) -> None:
        """What can be seen without restoring anything, of every backup that there is."""
        for shelf in shelves:
            for name, why in shelf.broken.items():
                self._verdict.found(Kind.RECORD, f"{shelf.bucket}: {name}: {why}")
            for record in shelf.records:
                if wrong := missing(record, shelf.sizes):
                    self._verdict.found(
                        Kind.OBJECTS, f"{shelf.bucket}: backup {record.id}: {'; '.join(wrong)}"
                    )
        self._ages_of({record.id: record for shelf in shelves for record in shelf.whole()}, shelves)
        self._wal_of(shelves, histories)

    def _ages_of(self, known: dict[str, BackupRecord], shelves: list[Shelf]) -> None:
        policy, now = self._playbook.backups, datetime.now(UTC)
        last = newest(known.values())
        if last is not None and now - last.ended > policy.every * _LATE:
            hours = (now - last.ended).total_seconds() / 3600
            words = f"the newest is {last.id}, {hours:.1f} h old; one is due every {format_duration(policy.every)}"
            self._verdict.found(Kind.OLD, words)
        for record in known.values():
            words = clock_problem(f"the machine that made backup {record.id}", record.ended, now)
            if words and record.ended > now:
                self._verdict.found(Kind.CLOCK, f"{words}: it is from the future")
            for shelf in shelves:
                if record.id not in {each.id for each in shelf.whole()}:
                    self._verdict.found(Kind.COPY, f"backup {record.id} is not whole in {shelf.bucket}")

    def _wal_of(self, shelves: list[Shelf], histories: dict[int, str]) -> None:
        """A gap in one bucket alone is found, too: a restore would not notice it until the other bucket is lost."""
        for shelf in shelves:
            oldest = min(shelf.whole(), key=lambda each: each.ended, default=None)
            if oldest is None:
                continue
            for problem in chain_of(oldest, [shelf], histories, Target()).problems:
                kind = {"history": Kind.HISTORY, "parted": Kind.PARTED}.get(problem.kind, Kind.GAP)
                self._verdict.found(kind, f"{shelf.bucket}, from backup {oldest.id} on: {problem.words}")

    async def _restore(self, choice: Choice, shelves: list[Shelf]) -> None:
        verdict, record = self._verdict, choice.record
        self._say(f"reading backup {record.id} in {choice.bucket}, {record.size >> 20} MiB")
        began = time.monotonic()
        await self._fetcher.check(choice)
        self._say(f"unpacking {record.unpacked >> 20} MiB")
        await self._fetcher.unpack(choice, self._scratch.data)
        unpacked = time.monotonic()
        self._say(f"replaying {len(choice.chain.files)} files of WAL")
        await self._fetcher.fetch_wal(choice, shelves, self._scratch.wal)
        live = choice.target.lsn is None and choice.target.time is None
        await self._scratch.start(choice, stay_standby=live, deadline=REPLAY_SECONDS)
        ended = time.monotonic()
        took = Took(record.unpacked, unpacked - began, len(choice.chain.files), ended - unpacked)
        verdict.seconds |= {"unpack": round(unpacked - began, 2), "replay": round(ended - unpacked, 2)}
        policy = self._playbook.backups
        verdict.tonight = estimate(took, unpacked=record.unpacked, wal_files=len(choice.chain.files))
        verdict.at_worst = worst(took, every=policy.every, wal_every=policy.wal_every)
        if verdict.tonight > policy.restore_within:
            words = f"it would take {verdict.tonight}, and {format_duration(policy.restore_within)} is what was promised"
            verdict.found(Kind.SLOW, words)

    async def _compare(self, lsn: int, theirs: dict[str, Sum]) -> None:
        """Both sides at the same LSN: the scratch server stands where the snapshot was taken."""
        began = time.monotonic()
        self._say(f"comparing with the running database at {format_lsn(lsn)}")
        instance = self._playbook.regions[self._region].postgres
        here = await psycopg.AsyncConnection.connect(
            **self._scratch.connection_options(),
            user=instance.user,
            dbname=instance.database,
            autocommit=True,
        )
        async with here:
            await here.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                ours = await sums(here, deadline=CHECK_SECONDS)
            except FailedError as error:
                self._verdict.found(
                    Kind.DAMAGE, f"the restored database cannot be read: {error.doing}: {error.found}"
                )
                return
        for words in compare.differences(theirs, ours):
            self._verdict.found(Kind.DIFFERENT, words)
        self._verdict.compared = True
        self._verdict.tables = {name: each.rows for name, each in ours.items() if theirs.get(name) == each}
        self._verdict.seconds["compare"] = round(time.monotonic() - began, 2)

    async def _check(self) -> None:
        """The restored database opens, and every table and index of it is in order."""
        began = time.monotonic()
        self._say("opening it, and checking tables and indexes")
        await self._scratch.promote(deadline=60.0)
        options = self._scratch.connection_options()
        instance = self._playbook.regions[self._region].postgres
        status, output, errors = await self._server.tool(
            "pg_amcheck",
            *("-h", options["host"], "-p", str(PORT), "-U", instance.user, "--all"),
            *("--install-missing", "--heapallindexed", "--jobs=1"),
            deadline=CHECK_SECONDS,
        )
        checked = judged(status, output, errors)
        for (kind, where), words in checked.found.items():
            self._verdict.found(Kind.DAMAGE, f"{kind} in {where}: {words}")
        if not checked.complete:
            self._verdict.found(Kind.DAMAGE, f"pg_amcheck could not look at everything: {checked.why}")
        self._verdict.seconds["check"] = round(time.monotonic() - began, 2)
