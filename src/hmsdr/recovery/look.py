"""What is left of a lost region, and what it could come back from: asked of everything at once, within bounds (RC-1).

What does not answer is said to be silent, with its own words; judging is `hmsdr.decide.recovery`'s part. It changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hmsdr.backup.fetch import Target, choose
from hmsdr.backup.findings import UnfitError
from hmsdr.backup.vault import Shelf, Vault
from hmsdr.decide.backups import missing
from hmsdr.decide.damageassessment import (
    CacheSeen,
    DnsSeen,
    NetworkSeen,
    RegionSeen,
    StoreSeen,
    components,
    gates,
)
from hmsdr.decide.gates import Gate
from hmsdr.decide.recovery import (
    BackupFound,
    Component,
    DatabasePlan,
    DatabaseSeen,
    PrimarySeen,
    SlotSeen,
    plan,
)
from hmsdr.drivers.agent_answers import AgentStatus, DataAnswer
from hmsdr.drivers.errors import DriverError
from hmsdr.errors import HmsdrError, RefusedError
from hmsdr.playbook.findings import nearest
from hmsdr.recovery.cluster import look_at_cluster
from hmsdr.runbook.systems import Systems

_T = TypeVar("_T")
_ASK_SECONDS = 10.0
_DATA_SECONDS = 40.0
"""The agent reads the end of its WAL, and tries its disk and its way to the primary."""
_STORE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Looked:
    """All that was seen, judged."""

    seen: RegionSeen
    epoch: int
    database: DatabasePlan
    components: tuple[Component, ...]
    gates: tuple[Gate, ...]

    @property
    def parameters(self) -> dict[str, str]:
        """Of the runbook that does it."""
        return {
            "region": self.seen.region,
            "path": str(self.database.picked or ""),
            "backup": self.seen.database.backup.id if self.database.picked == "restore" else "",
            "archive": self.seen.cluster.archive,
        }


async def look(systems: Systems, region: str) -> Looked:
    """Look at everything of `region`.

    Raises:
        RefusedError: there is no such region.
        StoreError: who may write is not known.
    """
    playbook = systems.playbook
    if region not in playbook.regions:
        known = f"Known: {', '.join(playbook.regions)}"
        raise RefusedError(
            f"planning the recovery of {region!r}",
            "no such region",
            nearest(region, playbook.regions) or known,
        )
    other, record = playbook.other_region(region), await systems.authority.read_authority()
    holder = None if record.holder is None else record.holder.instance
    (primary, ways), (status, data), cache, cluster, weights, shelves = await asyncio.gather(
        _primary(systems, region, other, holder),
        _agent(systems, region),
        _cache(systems, region),
        look_at_cluster(systems, region),
        _weights(systems),
        _shelves(systems, region),
    )
    backup, store = await _backup(systems, region, primary, shelves)
    local = None if isinstance(data, DriverError) else data
    silent = "" if local is not None else data.found if isinstance(data, DriverError) else ""
    database = DatabaseSeen(
        local=None if local is None else local.data,
        primary=primary,
        backup=backup,
        found=silent,
        streaming=isinstance(status, AgentStatus) and _streams(status),
        signs=_signs(status),
    )
    way = f"{region} to the database of {other}"
    ways += (
        ((way, None, silent),)
        if local is None
        else ((way, not local.unreachable, local.unreachable or "open"),)
    )
    seen = RegionSeen(
        region=region,
        other=other,
        slot=playbook.regions[region].postgres.slot,
        database=database,
        cache=cache,
        cluster=cluster,
        store=store,
        network=NetworkSeen(ways),
        dns=weights,
        holds_right=holder == playbook.regions[region].postgres.instance,
    )
    planned = plan(database)
    return Looked(seen, record.epoch, planned, components(seen, planned), gates(seen, planned))


def _streams(status: AgentStatus) -> bool:
    return status.database.state == "standby" and status.replication.streaming


def _signs(status: AgentStatus | DriverError) -> tuple[str, ...]:
    if isinstance(status, DriverError) or status.health is None:
        return ()
    return tuple(f"{sign.kind} in {sign.where}: {sign.evidence}" for sign in status.health.signs)


async def _primary(
    systems: Systems, region: str, other: str, holder: str | None
) -> tuple[PrimarySeen, tuple[tuple[str, bool | None, str], ...]]:
    """The other region's database, and whether it can be reached from here."""
    postgres, slot = systems.postgres(other), systems.playbook.regions[region].postgres.slot
    way = f"here to the database of {other}"
    try:
        status = await postgres.status(deadline=_ASK_SECONDS)
    except DriverError as error:
        return PrimarySeen(writes=False, found=error.found), ((way, None, error.found),)
    if not status.reachable:
        return PrimarySeen(writes=False, found=status.found), ((way, False, status.found),)
    ways: tuple[tuple[str, bool | None, str], ...] = ((way, True, "open"),)
    mine = systems.playbook.regions[other].postgres.instance
    if status.in_recovery or holder != mine:
        who = "nobody" if holder is None else holder
        found = f"{'it is a standby' if status.in_recovery else 'it is a primary'}, and {who} has the right to write"
        return PrimarySeen(writes=False, found=found), ways
    told, source, slots = await asyncio.gather(
        _try(postgres.timeline_history(deadline=_ASK_SECONDS)),
        _try(postgres.source(deadline=_ASK_SECONDS)),
        _try(postgres.slots(deadline=_ASK_SECONDS)),
    )
    ours = next(
        (each for each in ([] if isinstance(slots, DriverError) else slots) if each.name == slot), None
    )
    return PrimarySeen(
        writes=True,
        found="; ".join(each.found for each in (told, source, slots) if isinstance(each, DriverError)),
        system_identifier=status.system_identifier,
        timeline=status.timeline if isinstance(told, DriverError) else told[0],
        history=None if isinstance(told, DriverError) else told[1],
        lsn=status.lsn,
        size=0 if isinstance(source, DriverError) else source.size,
        oldest_wal=None if isinstance(source, DriverError) else source.oldest_wal,
        slot=None if ours is None else SlotSeen(ours.kind, ours.active, ours.wal_status == "lost"),
        slots=0 if isinstance(slots, DriverError) else len(slots),
        slots_at_most=0 if isinstance(source, DriverError) else source.slots_at_most,
    ), ways


async def _agent(systems: Systems, region: str) -> tuple[AgentStatus | DriverError, DataAnswer | DriverError]:
    agent = systems.agent(region)
    status = await _try(agent.status(deadline=_ASK_SECONDS))
    if isinstance(status, DriverError):
        return status, status
    return status, await _try(agent.data(deadline=_DATA_SECONDS))


async def _cache(systems: Systems, region: str) -> CacheSeen:
    found = await _try(systems.redis(region).info_replication(deadline=_ASK_SECONDS))
    if isinstance(found, DriverError):
        return CacheSeen(None, None, found.found)
    return CacheSeen(found.role, found.link_up)


async def _weights(systems: Systems) -> DnsSeen:
    found = await _try(systems.dns().weights(deadline=_ASK_SECONDS))
    if isinstance(found, DriverError):
        return DnsSeen({}, found.found)
    return DnsSeen({name: each.weight for name, each in found.items()})


@dataclass(frozen=True, slots=True)
class _Shelves:
    found: Sequence[Shelf]
    problems: dict[str, str]


async def _shelves(systems: Systems, region: str) -> _Shelves:
    vault = Vault(systems.objects(), systems.playbook, region)
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            found, problems = await vault.shelves()
    except TimeoutError:
        return _Shelves((), {"object store": f"no answer within {_STORE_SECONDS:g} s"})
    told = {bucket: error.found for bucket, error in problems.items()}
    for shelf in found:
        wrong = [f"{name}: {why}" for name, why in shelf.broken.items()]
        wrong += [words for record in shelf.records for words in missing(record, shelf.sizes)[:1]]
        if wrong:
            told[shelf.bucket] = "; ".join(wrong[:3])
    return _Shelves(found, told)


async def _backup(
    systems: Systems, region: str, primary: PrimarySeen, shelves: _Shelves
) -> tuple[BackupFound, StoreSeen]:
    """The backup that a restore would take; the primary's own history serves where the archive lacks it."""
    store = StoreSeen({shelf.bucket: len(shelf.whole()) for shelf in shelves.found}, shelves.problems)
    if not shelves.found:
        return BackupFound("; ".join(shelves.problems.values()) or "no bucket answers"), store
    vault = Vault(systems.objects(), systems.playbook, region)
    try:
        histories = await vault.histories(shelves.found)
        trial = await vault.last_trial(shelves.found)
        if primary.timeline is not None and primary.history:
            histories[primary.timeline] = primary.history
        choice = choose(shelves.found, histories, Target())
    except UnfitError as error:
        return BackupFound(error.found), store
    except HmsdrError as error:
        return BackupFound(f"{error.doing}: {error.found}"), store
    record = choice.record
    if primary.system_identifier not in (None, record.system_identifier):
        words = f"backup {record.id} is of system {record.system_identifier}, the primary of {primary.system_identifier}"
        return BackupFound(words), store
    wal = len(choice.chain.files)
    return BackupFound(
        id=record.id,
        bucket=choice.bucket,
        unpacked=record.unpacked,
        wal_files=wal,
        wal_bytes=wal * record.segment,
        reaches=choice.chain.reaches,
        room=choice.room,
        trial_seconds=trial.seconds
        if trial is not None and trial.good and trial.backup == record.id
        else None,
    ), store


async def _try(call: Awaitable[_T]) -> _T | DriverError:
    """The answer, or the error as a value: for observing, where silence is an answer."""
    try:
        return await call
    except DriverError as error:
        return error
