"""Scenario 1, regional outage (TV-4): the active region is killed, every process of it at once; in the end the hospital is home again.

By hand: the drill watches as an operator's tool does, and starts the failover itself. By itself: controllers at three sites do
all of that, and nobody touches anything. The rest is a person's to start: the lost region comes back as a standby, its data are
found equal, users go home to it.
"""

from __future__ import annotations

import asyncio

from hmsdr.control.following import follow
from hmsdr.control.watch import RegionWatch, Trigger
from hmsdr.drill.bring_back import bring_back
from hmsdr.drill.going_home import go_home, remember_start
from hmsdr.drill.practice import SETTLE_SECONDS, Scenario, Scene
from hmsdr.errors import FailedError
from hmsdr.lab import control
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.opening import open_store
from hmsdr.runbook.launch import launch
from hmsdr.runbook.state import RunStatus
from hmsdr.runbook.systems import Systems

NAME = "regional-outage"
TITLE = "Scenario 1: regional outage"
DETECTION_SECONDS = 60.0
FAILOVER_SECONDS = 120.0


async def _by_hand(scene: Scene) -> None:
    trigger = await _seen(scene)
    scene.found.trigger = trigger.as_json()
    scene.found.run = await launch(
        scene.playbook,
        {"from": scene.source, "to": scene.target},
        by=f"drill {NAME}",
        context={"trigger": trigger.as_json(), "drill": NAME},
        watcher=scene.narrator.run,
    )
    await _recovered(scene)


async def _recovered(scene: Scene) -> None:
    """What was failed over is settled, then the lost region comes back; without a failover there is nothing to come back behind."""
    run = scene.found.run
    if run is not None and run.status is RunStatus.SUCCEEDED:
        await asyncio.sleep(SETTLE_SECONDS)
        await bring_back(scene, by=f"drill {NAME}")
        await go_home(scene, by=f"drill {NAME}")


async def _seen(scene: Scene) -> Trigger:
    """Break it, and watch until it counts as lost; why is on the record."""
    store = await open_store(scene.playbook)
    systems = Systems(scene.playbook, store)
    watching = asyncio.create_task(RegionWatch(systems, scene.source).until_lost())
    try:
        await _break(scene, "")
        try:
            async with asyncio.timeout(DETECTION_SECONDS):
                trigger = await watching
        except TimeoutError:
            raise FailedError(
                f"waiting for {scene.source} to be seen lost",
                f"it was not within {DETECTION_SECONDS:g} s",
                "",
            ) from None
        scene.narrator.say(
            f"{scene.source} unreachable for {trigger.hold_down.total_seconds():g} s on every path: "
            f"failover to {scene.target}"
        )

        async def decided() -> list[NewEvent]:
            return [NewEvent(f"trigger.{trigger.kind}", scene.source, "watch", trigger.as_json())]

        await append_after(store, decided, doing="recording why the failover is wanted")
        return trigger
    finally:
        watching.cancel()
        await systems.close()
        await store.close()


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
    await _recovered(scene)


async def _break(scene: Scene, words: str) -> None:
    scene.found.start = await remember_start(scene)
    fault = await control.break_(scene.layout, "region-down", region=scene.source)
    scene.found.fault_at = fault.wall
    scene.narrator.say(f"{scene.source} is dead: {fault.count} processes killed at once{words}")


BY_HAND = Scenario(NAME, TITLE, "region-down", _by_hand, recovers=True)
BY_ITSELF = Scenario(NAME, TITLE, "region-down", _by_itself, recovers=True, ha=True)
