"""The end of the circle: data compared, the hospital taken home share by share, and whether all is where it began (RC-3, SW-1..4).

How the data are compared and users moved is the product's, as `hmsdr compare` and `hmsdr switchback` would.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from hmsdr.decide.lsn import format_lsn
from hmsdr.drill.practice import Scene
from hmsdr.drill.report import DataEqual, Phase, TableEqual, Watched
from hmsdr.log.opening import open_store
from hmsdr.log.store import Store
from hmsdr.runbook.announcing import SWITCHBACK, announce
from hmsdr.runbook.comparing import Compared
from hmsdr.runbook.equal_data import compare_regions
from hmsdr.runbook.launch import launch, prepare
from hmsdr.runbook.state import RunStatus
from hmsdr.runbook.systems import Systems

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


async def go_home(scene: Scene, *, by: str) -> None:
    """Compare, announce, switch back and look whether all is as at the start; a recovery that failed is not gone home to.

    Raises:
        HmsdrError: the data could not be compared, or a gate refuses.
    """
    if scene.found.recovery is None or scene.found.recovery.status is not RunStatus.SUCCEEDED:
        return
    parameters = {"from": scene.target, "to": scene.source}
    async with _opened(scene) as (systems, store):
        scene.narrator.say("The data of both sides are compared")
        began = time.time()
        data = _data(scene, await compare_regions(systems, store, by=by))
        scene.found.data_equal = data
        words = (
            f"{len(data.tables)} tables, {sum(each.rows for each in data.tables)} rows, at {data.lsns[-1]}"
        )
        outcome = "succeeded" if data.equal else "failed"
        scene.found.phases.append(
            Phase("data-equal", "The data of both sides are equal", _utc(began), _since(began), outcome, None, (words,))
        )  # fmt: skip
        if not data.equal:
            return
        prepared = await prepare(
            scene.playbook, systems, parameters, runbook=SWITCHBACK, events=await store.read()
        )
        await announce(systems, store, prepared, by=by)
    scene.narrator.say(f"The hospital goes home to {scene.source}, share by share")
    began = time.time()
    run = scene.found.switchback = await launch(
        scene.playbook, parameters, by=by, runbook=SWITCHBACK, watcher=scene.narrator.run
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
