"""Scenario 2, database failure (TV-5): the primary's database is killed for good, while its region lives and clinics write.

By hand: whoever is on call sees it in the health check and lets the database move alone; users stay where they are, and their
applications use the other region's. Its machine comes back, follows, is compared, and is handed the right to write again. By
itself: without its database a region serves nobody, so the controllers leave the whole of it, as for any lost service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from hmsdr.control.following import follow
from hmsdr.control.health import Area, Finding, examine
from hmsdr.drill.bring_back import bring_back, bring_database_back
from hmsdr.drill.going_home import DATABASE, go_home, remember_start, take_database_home
from hmsdr.drill.practice import SETTLE_SECONDS, Scenario, Scene
from hmsdr.drill.report import Watched
from hmsdr.errors import FailedError
from hmsdr.lab import control
from hmsdr.lab.hms.ledger import Entry, Ledger
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.opening import open_store
from hmsdr.runbook.launch import launch
from hmsdr.runbook.state import RunState, RunStatus
from hmsdr.runbook.systems import Systems

NAME = "database-failure"
TITLE = "Scenario 2: database failure"
FAULT = "database-killed"
KIND = "database-failed"
"""What the trigger is called, in the report and in the log."""
PATIENCE_SECONDS = 3.0
"""A database that crashed is started again by its agent: one that is still dead after so long does not come by itself."""
DETECTION_SECONDS = 60.0
FAILOVER_SECONDS = 120.0
_LOOK_PAUSE = 0.2


async def _by_hand(scene: Scene) -> None:
    await _break(scene, "")
    trigger = scene.found.trigger = await _seen(scene)
    scene.narrator.say(
        f"The database of {scene.source} is dead, its region is not: {DATABASE} to {scene.target}"
    )
    run = scene.found.run = await launch(
        scene.playbook,
        {"from": scene.source, "to": scene.target},
        by=f"drill {NAME}",
        runbook=DATABASE,
        context={"trigger": trigger, "drill": NAME},
        watcher=scene.narrator.run,
    )
    if not _well(run):
        return
    ended = time.time()
    await asyncio.sleep(SETTLE_SECONDS)
    scene.found.watched.append(stayed(Ledger.read(scene.ledger), ended, scene.source, run.plan.epoch))
    await bring_database_back(scene, by=f"drill {NAME}")
    await take_database_home(scene, by=f"drill {NAME}")


async def _by_itself(scene: Scene) -> None:
    store = await open_store(scene.playbook)
    try:
        before = (await store.head()).seq
        await _break(scene, ". Nobody touches anything now")
        followed = await follow(
            store, before, scene.narrator.run, deadline=DETECTION_SECONDS + FAILOVER_SECONDS
        )
        scene.found.trigger, scene.found.run = followed.decided, followed.run
    finally:
        await store.close()
    if _well(scene.found.run):
        await asyncio.sleep(SETTLE_SECONDS)
        await bring_back(scene, by=f"drill {NAME}")
        await go_home(scene, by=f"drill {NAME}")


async def _break(scene: Scene, words: str) -> None:
    scene.found.start = await remember_start(scene)
    fault = await control.break_(scene.layout, FAULT, region=scene.source)
    scene.found.fault_at = fault.wall
    scene.narrator.say(
        f"The database of {scene.source} is dead, with {fault.count} processes, and stays so{words}"
    )


async def _seen(scene: Scene) -> dict[str, Any]:
    """Ask as `hmsdr health-check` does, until the database was dead at every look for long enough; why is on the record.

    Raises:
        FailedError: it was not, within the time.
    """
    store = await open_store(scene.playbook)
    systems = Systems(scene.playbook, store)
    try:
        async with asyncio.timeout(DETECTION_SECONDS):
            trigger = await _dead(systems, scene.source)

        async def decided() -> list[NewEvent]:
            return [NewEvent(f"trigger.{KIND}", scene.source, "health check", trigger)]

        await append_after(store, decided, doing="recording why the failover is wanted")
    except TimeoutError:
        raise FailedError(
            f"waiting for the health check to find the database of {scene.source} dead",
            f"it did not within {DETECTION_SECONDS:g} s",
            "`hmsdr health-check` shows what is seen",
        ) from None
    else:
        return trigger
    finally:
        await systems.close()
        await store.close()


async def _dead(systems: Systems, region: str) -> dict[str, Any]:
    since: float | None = None
    while True:
        began = time.time()
        findings = await examine(systems)
        if not database_dead(findings, region):
            since = None
        elif since is None:
            since = began
        elif (now := time.time()) - since >= PATIENCE_SECONDS:
            return trigger_of(findings, region, since=since, now=now)
        await asyncio.sleep(_LOOK_PAUSE)


def database_dead(findings: Iterable[Finding], region: str) -> bool:
    """Whether a health check found that the database of `region` does not write."""
    return any(each.name == f"database {region}" and not each.well for each in findings)


def trigger_of(findings: Sequence[Finding], region: str, *, since: float, now: float) -> dict[str, Any]:
    """Why the database is moved, as JSON: what users lack, and how the rest of the region and the standby are. UTC seconds."""
    kept = [each for each in findings if each.area is Area.USERS or each.name.startswith("standby ")]
    return {
        "kind": KIND,
        "region": region,
        "unreachable_since": datetime.fromtimestamp(since, UTC).isoformat(),
        "decided_at": datetime.fromtimestamp(now, UTC).isoformat(),
        "hold_down_seconds": None,
        "seen_seconds": round(now - since, 3),
        "evidence": {each.name: each.observed for each in kept},
    }


def stayed(entries: Iterable[Entry], since: float, region: str, epoch: int) -> Watched:
    """Whether users are served in `region` all the same, and their writes by a database of a later epoch than `epoch`."""
    served = [each for each in entries if each.sent_at > since and each.ok]
    elsewhere = sorted({str(each.region) for each in served if each.region != region})
    writes = [each for each in served if each.kind == "write"]
    old = sum(each.epoch is None or each.epoch <= epoch for each in writes)
    words = f"{len(served)} requests served, {len(writes)} of them writes"
    words += f"; by {', '.join(elsewhere)}" if elsewhere else f", all in {region}"
    words += f"; {old} writes under an epoch that is over" if old else ""
    well = bool(writes) and not elsewhere and not old
    return Watched("users stay where they are and work with the other database", well, words)


def _well(run: RunState | None) -> bool:
    return run is not None and run.status is RunStatus.SUCCEEDED


BY_HAND = Scenario(NAME, TITLE, FAULT, _by_hand, recovers=True)
BY_ITSELF = Scenario(NAME, TITLE, FAULT, _by_itself, recovers=True, ha=True)
