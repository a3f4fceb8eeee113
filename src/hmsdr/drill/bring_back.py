"""After the failover of a drill: what was lost comes back, and the product makes it a standby again (TV-4, TV-5, RC-1..4).

The machines are the lab's to bring back; what is left on them, how it comes back and whether it did is the product's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from hmsdr.decide.recovery import Component
from hmsdr.drill.practice import Scene
from hmsdr.drill.report import Phase
from hmsdr.errors import RefusedError
from hmsdr.lab import control
from hmsdr.log.opening import open_store
from hmsdr.recovery.look import Looked, look
from hmsdr.runbook.launch import launch, refuse_gates
from hmsdr.runbook.state import RunStatus
from hmsdr.runbook.systems import Systems

RUNBOOK = "region-recovery"
FOLLOW = "database-follow"
"""For a database that was lost alone: its region's cache and services never were, and stay as they are."""
_FOLLOWS = ("follow", "rewind")
"""Ways back that `FOLLOW` goes by itself."""
_ASK_SECONDS = 10.0


async def bring_back(scene: Scene, *, by: str) -> None:
    """Bring the source's machines back, plan its recovery from what is left of it, and carry that out; all of it is in the report.

    Raises:
        HmsdrError: the machines do not come back, or a gate refuses.
    """
    await _machines_back(scene, f"The machines of {scene.source}", "come back", "are there again")
    began = time.time()
    looked = await _looked(scene)
    parameters = {name: value for name, value in looked.parameters.items() if value}
    await _recover(scene, looked, looked.components, RUNBOOK, parameters, began=began, by=by)


async def bring_database_back(scene: Scene, *, by: str) -> None:
    """The same where only the database's machine was lost: it follows the other one, and nothing else of its region is touched.

    Raises:
        RefusedError: a gate refuses, or what is left of the database cannot simply follow.
        HmsdrError: the machine does not come back.
    """
    await _machines_back(
        scene, f"The machine of the database of {scene.source}", "comes back", "is there again"
    )
    began = time.time()
    looked = await _looked(scene)
    refuse_gates(looked.gates)
    if str(looked.database.picked) not in _FOLLOWS:
        component = looked.database.component
        raise RefusedError(
            f"letting the database of {scene.source} follow that of {scene.target}",
            f"it is {component.condition} ({component.evidence[0]}): it would come back by {looked.database.picked}",
            f"`hmsdr plan recover {scene.source}` says what that takes",
        )
    await _recover(
        scene, looked, (looked.database.component,), FOLLOW, {"region": scene.source}, began=began, by=by
    )


async def _machines_back(scene: Scene, what: str, begins: str, ends: str) -> None:
    began = time.time()
    scene.narrator.say(f"{what} {begins}")
    healed = await control.heal(scene.layout)
    scene.found.phases.append(
        Phase("machines-back", f"{what} {ends}", _utc(began), _since(began), "succeeded", None, (healed[scene.source],))
    )  # fmt: skip


async def _recover(
    scene: Scene,
    looked: Looked,
    components: Sequence[Component],
    runbook: str,
    parameters: Mapping[str, str],
    *,
    began: float,
    by: str,
) -> None:
    for each in components:
        scene.narrator.say(f"  {each.name}: {each.condition} ({each.evidence[0]})")
    refuse_gates(looked.gates)
    run = scene.found.recovery = await launch(
        scene.playbook,
        parameters,
        by=by,
        runbook=runbook,
        context={"gates": [asdict(gate) for gate in looked.gates]},
        watcher=scene.narrator.run,
    )
    words = tuple(f"{each.name} {each.condition}: {each.evidence[0]}" for each in components)
    scene.found.phases.append(
        Phase("recovery", run.plan.title, _utc(began), _since(began), str(run.status), run.run, words)
    )
    if run.status is RunStatus.SUCCEEDED:
        scene.found.reconciled = await _reconciled(scene, looked)


async def _looked(scene: Scene) -> Looked:
    store = await open_store(scene.playbook, reading=True)
    systems = Systems(scene.playbook, store)
    try:
        return await look(systems, scene.source)
    finally:
        await systems.close()
        await store.close()


async def _reconciled(scene: Scene, looked: Looked) -> Mapping[str, Any]:
    """What the lost primary had committed that the new one never saw, as its own WAL says it: nothing, when they had not parted."""
    store = await open_store(scene.playbook, reading=True)
    systems = Systems(scene.playbook, store)
    try:
        found = await systems.agent(scene.source).lost(deadline=_ASK_SECONDS)
    finally:
        await systems.close()
        await store.close()
    at = looked.database.parted_at
    lost = next((each for each in reversed(found.lost) if each["fork"] == at), None)
    if lost is None:
        return {"seconds": 0.0, "commits": 0, "rows": 0, "complete": True}
    return {name: lost[name] for name in ("seconds", "commits", "rows", "complete")}


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _since(began: float) -> float:
    return round(time.time() - began, 3)
