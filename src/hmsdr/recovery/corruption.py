"""What of the hospital's data is damaged, on which copies, and the way out: asked of everything at once, within bounds. It changes nothing.

Who does not answer is unknown, never sound; judging is `hmsdr.decide.corruption`'s part.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hmsdr.backup.fetch import Choice, Target, choose
from hmsdr.backup.findings import Kind, UnfitError
from hmsdr.backup.vault import Shelf, Vault
from hmsdr.decide import corruption
from hmsdr.decide.backups import BackupRecord, Trial
from hmsdr.decide.corruption import Answer, Before, Clean, Condition, Copy, Diagnosis, Point, PointRefused
from hmsdr.decide.lsn import format_lsn
from hmsdr.drivers.errors import DriverError
from hmsdr.errors import HmsdrError, RefusedError
from hmsdr.playbook.findings import nearest
from hmsdr.runbook.systems import Systems

_ASK_SECONDS = 10.0
_COUNT_SECONDS = 30.0
_DATA_SECONDS = 40.0
_STORE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What was written after a point: ``seconds``, ``commits`` (the agent's own among them; at least, when ``more``), bytes of WAL.

    None where it is not known, and ``found`` says why.
    """

    seconds: float | None = None
    commits: int | None = None
    more: bool = False
    wal: int | None = None
    found: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """The way back: the point, what leads there, what it costs. ``room`` in bytes; ``free`` is None where nobody could be asked."""

    point: Point
    choice: Choice
    cost: Cost
    free: int | None


@dataclass(frozen=True, slots=True)
class Mapped:
    """All that was seen, judged. ``obstacle`` and ``remedy`` say why there is no way back, where there should be one."""

    region: str
    other: str
    epoch: int
    diagnosis: Diagnosis
    backups: tuple[tuple[BackupRecord, Condition, str], ...]
    problems: dict[str, str]
    cleans: tuple[Clean, ...]
    way: Way | None = None
    obstacle: str = ""
    remedy: str = ""


async def look(systems: Systems, region: str, before: Before | None) -> Mapped:
    """Look at both copies and at the backups.

    Args:
        systems: where to ask.
        region: whose database has, or had last, the right to write.
        before: a person's word that the data are wrong from there on.

    Raises:
        RefusedError: there is no such region, or the other one has the right to write.
        StoreError: who may write is not known.
    """
    playbook, doing = systems.playbook, f"mapping the damage of {region!r}"
    if region not in playbook.regions:
        known = f"Known: {', '.join(playbook.regions)}"
        raise RefusedError(doing, "no such region", nearest(region, playbook.regions) or known)
    other, record = playbook.other_region(region), await systems.authority.read_authority()
    holder = None if record.holder is None else record.holder.instance
    if holder == playbook.regions[other].postgres.instance:
        remedy = f"Map the damage of the primary: `hmsdr plan corruption {other}`; it shows both copies"
        raise RefusedError(doing, f"{other} has the right to write (epoch {record.epoch})", remedy)
    ours, theirs, (shelves, problems) = await asyncio.gather(
        _copy(systems, region, primary=True),
        _copy(systems, other, primary=False),
        _shelves(systems, region),
    )
    diagnosis = corruption.diagnose(ours, theirs, before)
    vault = Vault(systems.objects(), playbook, region)
    trial, histories = await _stored(vault, shelves, problems)
    records = {each.id: each for shelf in shelves for each in shelf.whole()}
    cleans = corruption.clean_moments((ours, theirs), trial, tuple(records.values()))
    first = diagnosis.first_sign
    backups = tuple(
        (each, *corruption.backup_condition(each, first, cleans, trial))
        for each in sorted(records.values(), key=lambda each: each.ended)
    )
    mapped = Mapped(region, other, record.epoch, diagnosis, backups, problems, cleans)
    if diagnosis.answer is not Answer.RESTORE:
        return mapped
    try:
        wanted = corruption.point(first, cleans, before, seen_lsn=corruption.first_lsn((ours, theirs)))
        way = await _way(systems, mapped, wanted, shelves, histories)
    except (PointRefused, UnfitError) as refusal:
        return replace(mapped, obstacle=refusal.found, remedy=refusal.remedy)
    return replace(mapped, way=way)


async def _copy(systems: Systems, region: str, *, primary: bool) -> Copy:
    agent = systems.agent(region)
    try:
        status = await agent.status(deadline=_ASK_SECONDS)
        told = await agent.damage(deadline=_ASK_SECONDS)
    except DriverError as error:
        return Copy(region, primary, found=error.found)
    return Copy(
        region,
        primary,
        status.health,
        status.database.lsn,
        None if told.checked_at is None else datetime.fromisoformat(told.checked_at),
        whole=told.whole,
    )


async def _shelves(systems: Systems, region: str) -> tuple[list[Shelf], dict[str, str]]:
    vault = Vault(systems.objects(), systems.playbook, region)
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            found, problems = await vault.shelves()
    except TimeoutError:
        return [], {"object store": f"no answer within {_STORE_SECONDS:g} s"}
    told = {bucket: error.found for bucket, error in problems.items()}
    for shelf in found:
        if shelf.broken:
            told[shelf.bucket] = "; ".join(f"{name}: {why}" for name, why in shelf.broken.items())
    return found, told


async def _stored(
    vault: Vault, shelves: list[Shelf], problems: dict[str, str]
) -> tuple[Trial | None, dict[int, str]]:
    """The last trial and the histories; what cannot be read is noted in `problems`."""
    try:
        return await vault.last_trial(shelves), await vault.histories(shelves)
    except HmsdrError as error:
        problems[error.doing] = error.found
        return None, {}


async def _way(
    systems: Systems, mapped: Mapped, wanted: Point, shelves: list[Shelf], histories: dict[int, str]
) -> Way:
    """What leads to the point, and what going back there costs.

    Raises:
        UnfitError: no backup leads there, it is another database, or there is no room.
        PointRefused: the archive does not reach it.
    """
    doing = f"going back to {words(wanted)}"
    if not shelves:
        raise UnfitError(doing, Kind.STORE, "; ".join(mapped.problems.values()) or "no bucket answers")
    choice = choose(shelves, histories, Target(lsn=wanted.lsn, time=wanted.time))
    written = max(
        (shelf.stored[key].modified for shelf in shelves for key in shelf.wal.values()), default=None
    )
    if late := corruption.not_archived(wanted, written):
        remedy = "Have the primary end its file of WAL (`SELECT pg_switch_wal()`) and ask again, or name an earlier moment"
        raise PointRefused(late, remedy)
    free = await _room(systems, mapped, doing, choice)
    return Way(wanted, choice, await _cost(systems, mapped.region, wanted), free)


async def _room(systems: Systems, mapped: Mapped, doing: str, choice: Choice) -> int | None:
    """Free bytes beside the region's database, which must be enough; the backup must be of that database, and of its version."""
    backup = choice.record
    for region in (mapped.region, mapped.other):
        try:
            local = (await systems.agent(region).data(deadline=_DATA_SECONDS)).data
        except DriverError:
            continue
        if local.system_identifier not in (None, backup.system_identifier):
            found = f"backup {backup.id} is of system {backup.system_identifier}, {region} is {local.system_identifier}"
            raise UnfitError(doing, Kind.SYSTEM, found)
        if region == mapped.region:
            if local.free < choice.room:
                found = f"{choice.room >> 20} MiB are needed beside its data directory, and {local.free >> 20} MiB are free"
                raise UnfitError(doing, Kind.SPACE, found)
            return local.free
    return None


async def _cost(systems: Systems, region: str, wanted: Point) -> Cost:
    """What was written after the point, as far as the damaged database tells: it is asked, not trusted."""
    postgres = systems.postgres(region)
    try:
        now = await postgres.now(deadline=_ASK_SECONDS)
        if wanted.lsn is not None:
            status = await postgres.status(deadline=_ASK_SECONDS)
            return Cost(
                wal=None if status.lsn is None else max(0, status.lsn - wanted.lsn), found=status.found
            )
        assert wanted.time is not None  # noqa: S101 - a point is one of the two
        seconds = (now - wanted.time).total_seconds()
    except DriverError as error:
        ago = None if wanted.time is None else (datetime.now(UTC) - wanted.time).total_seconds()
        return Cost(ago, found=error.found)
    try:
        commits, more = await postgres.commits_after(wanted.time, deadline=_COUNT_SECONDS)
    except DriverError as error:
        return Cost(seconds, found=error.found)
    return Cost(seconds, commits, more)


def words(wanted: Point) -> str:
    """The point, for people."""
    return (
        format_lsn(wanted.lsn)
        if wanted.lsn is not None
        else corruption.stamp(wanted.time)
        if wanted.time is not None
        else ""
    )
