"""The end of the circle: data compared, the hospital taken home share by share, and whether all is where it began (RC-3, SW-1..4).

How the data are compared and users moved is the product's, as `hmsdr compare`, `hmsdr switchback` and `hmsdr run start` would.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from hmsdr.decide.lsn import format_lsn
from hmsdr.drill.practice import Scene
from hmsdr.drill.report import DataEqual, Phase, TableEqual, Watched
from hmsdr.lab.hms.ledger import HOSPITAL_ANSWERED, Entry, Ledger
from hmsdr.log.opening import open_store
from hmsdr.log.store import Store
from hmsdr.runbook.announcing import SWITCHBACK, announce
from hmsdr.runbook.comparing import Compared
from hmsdr.runbook.equal_data import compare_regions
from hmsdr.runbook.launch import launch, prepare
from hmsdr.runbook.state import RunStatus
from hmsdr.runbook.systems import Systems

DATABASE = "database-failover"
"""The runbook by which a database moves alone, there and back."""
_ASK_SECONDS = 5.0


async def remember_start(scene: Scene) -> Mapping[str, str]:
    """How it is now, in words by what it is: who has the right to write, each database's role, weights, and the primary's slots."""
    async with _opened(scene) as (systems, _):
        record = await systems.authority.read_authority()
        holder = None if record.holder is None else record.holder.instance
        found = {"right to write": holder or "nobody"}
        for name in scene.playbook.regions:
            status = await systems.postgres(name).status(deadline=_ASK_SECONDS)
            role = "standby" if status.in_recovery else "primary"
            found[f"database of {name}"] = role if status.reachable else "silent"
            cache = await systems.redis(name).info_replication(deadline=_ASK_SECONDS)
            found[f"cache of {name}"] = cache.role
        weights = await systems.dns().weights(deadline=_ASK_SECONDS)
        found["weights"] = ", ".join(f"{name} {item.weight}" for name, item in sorted(weights.items()))
        active = next(
            (n for n, each in scene.playbook.regions.items() if each.postgres.instance == holder),
            scene.source,
        )
        slots = await systems.postgres(active).slots(deadline=_ASK_SECONDS)
        found["slots in use on the primary"] = ", ".join(sorted(each.name for each in slots if each.active))
        return found


async def data_are_equal(scene: Scene, *, by: str) -> bool:
    """Compare the data of both sides; what was found is in the report.

    Raises:
        HmsdrError: they could not be compared.
    """
    async with _opened(scene) as (systems, store):
        scene.narrator.say("The data of both sides are compared")
        began = time.time()
        data = _data(scene, await compare_regions(systems, store, by=by))
    scene.found.data_equal = data
    words = f"{len(data.tables)} tables, {sum(each.rows for each in data.tables)} rows, at {data.lsns[-1]}"
    outcome = "succeeded" if data.equal else "failed"
    scene.found.phases.append(
        Phase("data-equal", "The data of both sides are equal", _utc(began), _since(began), outcome, None, (words,))
    )  # fmt: skip
    return data.equal


async def go_home(scene: Scene, *, by: str) -> None:
    """Compare, announce, switch back and look whether all is as at the start; a recovery that failed is not gone home to.

    Raises:
        HmsdrError: the data could not be compared, or a gate refuses.
    """
    if not _recovered(scene) or not await data_are_equal(scene, by=by):
        return
    parameters = {"from": scene.target, "to": scene.source}
    async with _opened(scene) as (systems, store):
        prepared = await prepare(
            scene.playbook, systems, parameters, runbook=SWITCHBACK, events=await store.read()
        )
        await announce(systems, store, prepared, by=by)
    scene.narrator.say(f"The hospital goes home to {scene.source}, share by share")
    await _homewards(scene, SWITCHBACK, by=by)


async def take_database_home(scene: Scene, *, by: str) -> None:
    """The same for a database that moved alone: compared, it is handed back as planned; users were at home all the while.

    Raises:
        HmsdrError: the data could not be compared, or a gate refuses.
    """
    if not _recovered(scene) or not await data_are_equal(scene, by=by):
        return
    scene.narrator.say(f"The database goes home to {scene.source}, handed over as planned")
    began = time.time()
    await _homewards(scene, DATABASE, by=by)
    scene.found.watched.append(unnoticed(Ledger.read(scene.ledger), began, time.time()))


def unnoticed(entries: Iterable[Entry], began: float, ended: float) -> Watched:
    """Whether no user was refused between two moments (UTC seconds) in which the database was handed over; none asked shows nothing."""
    asked = [each for each in entries if began <= each.ended_at <= ended]
    failed = [each for each in asked if not each.ok and each.error not in HOSPITAL_ANSWERED]
    words = f"{len(failed)} of {len(asked)} requests failed in {ended - began:.1f} s"
    return Watched("users did not notice the way home", bool(asked) and not failed, words)


def _recovered(scene: Scene) -> bool:
    run = scene.found.recovery
    return run is not None and run.status is RunStatus.SUCCEEDED


async def _homewards(scene: Scene, runbook: str, *, by: str) -> None:
    """Carry `runbook` out towards home, and look whether all is as it was."""
    began = time.time()
    run = scene.found.switchback = await launch(
        scene.playbook,
        {"from": scene.target, "to": scene.source},
        by=by,
        runbook=runbook,
        watcher=scene.narrator.run,
    )
    scene.found.phases.append(
        Phase("switchback", run.plan.title, _utc(began), _since(began), str(run.status), run.run)
    )
    if run.status is RunStatus.SUCCEEDED:
        scene.found.watched.append(as_at_start(scene.found.start or {}, await remember_start(scene)))


def as_at_start(start: Mapping[str, str], end: Mapping[str, str]) -> Watched:
    """Whether it ends where it began; what is not so is named. Without a start nothing is known."""
    odd = [
        f"{name}: {start.get(name, 'not known')} at the start, {end.get(name, 'not known')} at the end"
        for name in sorted({*start, *end})
        if start.get(name) != end.get(name)
    ]
    words = "; ".join(odd) or "; ".join(f"{name}: {value}" for name, value in end.items())
    return Watched(
        "it ends where it began", bool(start) and not odd, words or "nothing is known of the start"
    )


def _data(scene: Scene, found: Compared) -> DataEqual:
    different: dict[str, list[str]] = {}
    for each in found.differences:
        # Where, without any row's key: a report is passed around.
        end = "" if each.pages is None else f"pages from {each.pages[0]}"
        different.setdefault(each.table, []).append(each.found or end or "rows differ")
    names = sorted({*found.sums, *different})
    tables = tuple(
        TableEqual(
            name,
            found.sums[name].rows if name in found.sums else 0,
            found.sums[name].sum if name in found.sums else "",
            tuple(different.get(name, ())),
        )
        for name in names
    )
    moments = tuple(format_lsn(each) for each in found.lsns)
    return DataEqual(found.equal, scene.target, scene.source, moments, round(found.seconds, 3), tables)


@asynccontextmanager
async def _opened(scene: Scene) -> AsyncIterator[tuple[Systems, Store]]:
    store = await open_store(scene.playbook)
    systems = Systems(scene.playbook, store)
    try:
        yield systems, store
    finally:
        await systems.close()
        await store.close()


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _since(began: float) -> float:
    return round(time.time() - began, 3)
