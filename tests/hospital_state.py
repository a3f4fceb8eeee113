"""What a lab's hospital looks like from outside, for comparing before and after: asked with the production drivers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from hmsdr.lab.hms.ledger import Entry, Ledger, dual_writers, lost_writes, present_ids, tables
from hmsdr.lab.layout import DATABASE, Layout
from hmsdr.log.events import Event
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.runbook.systems import Systems

EAST, WEST = "us-east-1", "us-west-2"


@dataclass(frozen=True)
class State:
    """Who writes, where users are sent, what each deployment runs and uses."""

    epoch: int
    phase: str
    holder: str | None
    weights: dict[str, int]
    record_epoch: int | None
    primaries: tuple[str, ...]
    replicas: dict[str, dict[str, int]] = field(default_factory=dict)
    stores: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)


async def look(layout: Layout, *, regions: tuple[str, ...] = (EAST, WEST)) -> State:
    playbook = load(layout.playbook)
    store = await SqliteStore.open(layout.store)
    systems = Systems(playbook, store)
    try:
        authority = await store.read_authority()
        weights = await systems.dns().weights(deadline=5)
        primaries, replicas, stores = [], {}, {}
        for region in regions:
            status = await systems.postgres(region).status(deadline=3)
            if status.reachable and status.in_recovery is False:
                primaries.append(region)
            found = await systems.kubernetes(region).deployments(deadline=5)
            replicas[region] = {each.name: each.replicas for each in found}
            stores[region] = {
                each.name: (each.env["DATABASE_HOST"], each.env["REDIS_HOST"]) for each in found
            }
        return State(
            authority.epoch,
            str(authority.phase),
            authority.holder.instance if authority.holder else None,
            {name: each.weight for name, each in weights.items()},
            await systems.dns().epoch(deadline=5),
            tuple(primaries),
            replicas,
            stores,
        )
    finally:
        await systems.close()
        await store.close()


async def events(layout: Layout, subject: str | None = None) -> list[Event]:
    store = await SqliteStore.open(layout.store)
    try:
        return await store.read(subject=subject)
    finally:
        await store.close()


async def head(layout: Layout) -> str:
    store = await SqliteStore.open(layout.store)
    try:
        return (await store.head()).hash
    finally:
        await store.close()


async def epochs(layout: Layout, region: str) -> list[tuple[int, str]]:
    """Epochs under which a primary has written, as its own table says: one row for each promotion."""
    where = layout.regions[region].postgres
    async with await psycopg.AsyncConnection.connect(
        f"host={where.host} port={where.port} user=postgres dbname={DATABASE} connect_timeout=3"
    ) as connection:
        return await (
            await connection.execute("SELECT epoch, instance FROM hmsdr_epoch ORDER BY epoch")
        ).fetchall()


async def judged(layout: Layout, region: str, path: Path) -> tuple[list[Entry], list[str], int]:
    """The clinics' ledger, lost writes compared with the database of `region`, and dual writers."""
    where = layout.regions[region].postgres
    entries = Ledger.read(path)
    conninfo = f"host={where.host} port={where.port} user=postgres dbname={DATABASE}"
    present = await present_ids(conninfo, tables(entries), deadline=10)
    return entries, lost_writes(entries, present), dual_writers(entries)
