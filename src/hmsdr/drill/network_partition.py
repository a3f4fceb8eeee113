"""Scenario 3, network partition (TV-6): wires are cut, nothing dies, and two regions must never both write.

First the wire between the regions alone: the witness sees both, so nobody may be promoted, and users must not notice. Then the
active region is cut off from both other sites, while its clinics still reach it: the worst there is, for whoever does not fence.
It must stop writing by itself before the other side begins; when the wires are joined again, it must not begin anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from hmsdr.control.chronicle import DECIDED
from hmsdr.control.controller import SEEN
from hmsdr.control.following import follow
from hmsdr.drill.practice import Scenario, Scene
from hmsdr.drill.report import Watched
from hmsdr.drivers.errors import DriverError
from hmsdr.lab import wires
from hmsdr.lab.hms.ledger import HOSPITAL_ANSWERED, Ledger
from hmsdr.lab.layout import WITNESS
from hmsdr.lab.regions import Agents
from hmsdr.log.events import Event
from hmsdr.log.opening import open_store
from hmsdr.log.store import Store
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.systems import Systems

NAME = "network-partition"
TITLE = "Scenario 3: network partition"
_HOLD_DOWNS = 2.0
"""For so many hold-downs the first wire stays cut."""
_FAILOVER_SECONDS = 60.0
_BACK_SECONDS = 30.0
_STREAM_SECONDS = 20.0


async def _act(scene: Scene) -> None:
    store = await open_store(scene.playbook, site=WITNESS)
    try:
        await _regions_alone(scene, store)
        await _streams_again(scene)
        await _cut_off(scene, store)
        await _joined_again(scene)
    finally:
        wires.join()
        await store.close()


async def _regions_alone(scene: Scene, store: Store) -> None:
    """The wire between the regions: seen, and nothing done about it."""
    before, began = (await store.head()).seq, time.time()
    _cut(scene.source, scene.target)
    scene.narrator.say(f"The wire between {scene.source} and {scene.target} is cut; the witness sees both")
    await asyncio.sleep(_HOLD_DOWNS * scene.playbook.thresholds.triggers.region_unreachable.total_seconds())
    events = await store.read(before)
    wires.join()
    ended = time.time()
    scene.narrator.say("The wire is joined again")
    failed = [
        entry
        for entry in Ledger.read(scene.ledger)
        if began <= entry.ended_at <= ended and not entry.ok and entry.error not in HOSPITAL_ANSWERED
    ]
    scene.found.watched += [
        _detected(events, scene.source, "the cut between the regions was seen"),
        _nobody(events, "with only the regions cut from each other, nobody was promoted"),
        Watched(
            "users did not notice", not failed, f"{len(failed)} requests failed in {ended - began:.0f} s"
        ),
    ]


async def _streams_again(scene: Scene) -> None:
    """A standby that lags is not failed over to: it must catch up before the next trouble, by itself."""
    began, streams = time.monotonic(), False
    async with Agents(scene.layout) as agents:
        while not streams and time.monotonic() - began < _STREAM_SECONDS:
            streams = await agents.streams(scene.target, deadline=1.0)
            await asyncio.sleep(0.1)
    took = f"{time.monotonic() - began:.1f} s after the wire was joined"
    scene.found.watched.append(
        Watched("the standby streams again", streams, took if streams else "it does not")
    )


async def _cut_off(scene: Scene, store: Store) -> None:
    """The active region alone, with its clinics: the others must go on without it."""
    before = (await store.head()).seq
    scene.found.fault_at = time.time()
    _cut(scene.source, scene.target)
    _cut(scene.source, WITNESS)
    scene.narrator.say(
        f"{scene.source} is cut off from {scene.target} and {WITNESS}; its clinics still reach it"
    )
    followed = await follow(store, before, scene.narrator.run, deadline=_FAILOVER_SECONDS)
    scene.found.trigger, scene.found.run = followed.decided, followed.run
    scene.found.watched.append(_detected(await store.read(before), scene.source, "the cut-off was seen"))


async def _joined_again(scene: Scene) -> None:
    """The wires are whole: the old side must see that its time is over, and not write."""
    wires.join()
    scene.narrator.say(f"The wires are joined: {scene.source} is back, and must not write")
    store = await open_store(scene.playbook)
    systems = Systems(scene.playbook, store)
    state, ends = "silent", time.monotonic() + _BACK_SECONDS
    try:
        while time.monotonic() < ends:
            try:
                status = await systems.agent(scene.source).status(deadline=2.0)
            except DriverError as error:
                state = error.found
            else:
                state = f"{status.database.state}, lease {'held' if status.lease.held else 'not held'}"
                if status.database.state != "primary" and not status.lease.held:
                    break
            await asyncio.sleep(0.2)
        await asyncio.sleep(2.0)
        primaries = [name for name in scene.playbook.regions if await _writes(systems, name)]
    finally:
        await systems.close()
        await store.close()
    only = primaries == [scene.target]
    scene.found.watched.append(
        Watched(f"joined again, only {scene.target} writes", only, f"{scene.source}: {state}")
    )


async def _writes(systems: Systems, region: str) -> bool:
    status = await systems.postgres(region).status(deadline=3.0)
    return status.reachable and status.in_recovery is False


def _cut(one: str, other: str) -> None:
    wires.cut(one, other)
    wires.cut(other, one)


def _detected(events: Sequence[Event], region: str, what: str) -> Watched:
    seen = [event for event in events if event.kind == SEEN and event.data["sight"] != "reachable"]
    by = sorted({f"{event.subject} {event.data['sight']} from {_site(event)}" for event in seen})
    return Watched(what, any(event.subject == region for event in seen), "; ".join(by) or "nobody said so")


def _nobody(events: Sequence[Event], what: str) -> Watched:
    begun = [event.kind for event in events if event.kind in (DECIDED, "run.started")]
    return Watched(what, not begun, "no failover was decided" if not begun else ", ".join(begun))


def _site(event: Event) -> str:
    return event.actor.removeprefix("controller ").partition("/")[0]


def _grace(playbook: Playbook) -> float:
    """A cut-off writer that replicates asynchronously goes on until its lease has run out."""
    return playbook.database.lease.total_seconds()


SCENARIO = Scenario(NAME, TITLE, "network partition", _act, ha=True, apart=True, grace=_grace)
