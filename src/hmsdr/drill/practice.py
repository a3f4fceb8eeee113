"""What every drill does: a lab, clinics at work, the scenario's trouble, and a report of what users and data went through.

The trouble is the scenario's; watching, deciding, failing over and validating are the product's, as in production. However it
ends, a report is made and, unless it is to be kept, the lab is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmsdr.drill.measures import Gathered, assess
from hmsdr.drill.report import DataEqual, Phase, Report, Watched
from hmsdr.errors import FailedError, HmsdrError
from hmsdr.lab import control
from hmsdr.lab.client import attached
from hmsdr.lab.hms.ledger import Entry, Ledger, present_ids, tables
from hmsdr.lab.layout import Layout
from hmsdr.log.opening import open_store
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.launch import Watcher
from hmsdr.runbook.state import RunState, RunStatus

CALM_SECONDS = 3.0
"""Traffic before the fault: what users are used to."""
SETTLE_SECONDS = 4.0
"""Traffic after the failover: longer than connections and DNS answers live."""
_COMPARE_SECONDS = 15.0


@dataclass(slots=True)
class Narrator:
    """Who is told how the drill goes on. ``say`` gets sentences, the others what their names say."""

    say: Callable[[str], None] = field(default=lambda _: None)
    lab_progress: Callable[[dict[str, Any]], None] = field(default=lambda _: None)
    run: Watcher = field(default_factory=Watcher)


@dataclass(slots=True)
class Found:
    """What there is so far; the report is made of it however far the drill came. ``fault_at`` is UTC seconds."""

    fault_at: float | None = None
    trigger: dict[str, Any] | None = None
    run: RunState | None = None
    phases: list[Phase] = field(default_factory=list)
    recovery: RunState | None = None
    """The run that brought the lost region back."""
    reconciled: Mapping[str, Any] | None = None
    """What the lost primary had alone: seconds, commits, rows, whether all of it is known."""
    start: Mapping[str, str] | None = None
    """Who writes, who follows, where users are sent, as it was before the fault."""
    data_equal: DataEqual | None = None
    switchback: RunState | None = None
    """The run that took the hospital home."""
    watched: list[Watched] = field(default_factory=list)
    """What the scenario demands besides, and what was seen."""
    log_head: str | None = None
    entries: list[Entry] = field(default_factory=list)
    present: set[str] | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a scenario plays, and what it has found."""

    layout: Layout
    playbook: Playbook
    narrator: Narrator
    ledger: Path
    found: Found

    @property
    def source(self) -> str:
        """The active region."""
        return self.playbook.home_region

    @property
    def target(self) -> str:
        """The other one."""
        return self.playbook.other_region(self.source)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A drill. ``act`` makes the trouble and waits until it is over.

    ``recovers``: the lost side is to be brought back. ``ha``: with etcd and controllers at three sites. ``apart``: with each site in a network of its own. ``grace``: for so many
    seconds after the fault the lost side may still acknowledge what is then lost, by what asynchronous replication promises.
    """

    name: str
    title: str
    fault: str
    act: Callable[[Scene], Awaitable[None]]
    recovers: bool = False
    ha: bool = False
    apart: bool = False
    grace: Callable[[Playbook], float] = field(default=lambda _: 1.0)


async def practise(
    scenario: Scenario,
    directory: Path,
    ledger: Path,
    narrator: Narrator,
    *,
    rate: float | None = None,
    keep: bool = False,
) -> Report:
    """Carry the drill out.

    Args:
        scenario: which.
        directory: of the lab.
        ledger: file for the clinics' ledger; stays.
        narrator: who is told.
        rate: requests a second; None means the clinics' own default.
        keep: leave the lab up at the end.

    Raises:
        RefusedError: the lab cannot be brought up here.
        FailedError: the lab did not come up, or the fault could not be made: there was no drill to report on.
    """
    started = time.time()
    narrator.say("Bringing up two regions with real servers")
    layout = await control.up(directory, progress=narrator.lab_progress, ha=scenario.ha)
    try:
        scene = Scene(layout, load(layout.playbook), narrator, ledger, Found())
        async with nullcontext() if keep else attached(layout):  # killed, it leaves no lab behind
            await _drill(scenario, scene, rate=rate)
    finally:
        await asyncio.shield(leave_whole(layout, narrator) if keep else control.down(layout))
    found = scene.found
    if found.fault_at is None:
        raise FailedError(
            f"drill {scenario.name}", found.problem or "there was no fault", "See the lab's logs"
        )
    return assess(
        Gathered(
            scenario=scenario.name,
            title=scenario.title,
            playbook=scene.playbook,
            source=scene.source,
            target=scene.target,
            fault=scenario.fault,
            fault_at=found.fault_at,
            grace_seconds=scenario.grace(scene.playbook),
            started_at=started,
            ended_at=time.time(),
            trigger=found.trigger,
            run=found.run,
            watched=tuple(found.watched),
            phases=tuple(found.phases),
            recovers=scenario.recovers,
            recovery=found.recovery,
            reconciled=found.reconciled,
            data_equal=found.data_equal,
            switchback=found.switchback,
            log_head=found.log_head,
            entries=found.entries,
            present=found.present,
            problem=found.problem,
        )
    )


async def leave_whole(layout: Layout, narrator: Narrator) -> None:
    """A lab that stays up is left whole: what is still broken, because the drill ended midway, is started again."""
    status = await control.supervisor_status(layout)
    if status is None or not status["faults"]:
        return
    narrator.say("The drill ended midway: what it broke in the lab is started again")
    try:
        await control.heal(layout)
    except HmsdrError as error:
        narrator.say(f"The lab is not whole: {error}. `hmsdr lab status` says what is missing")


async def _drill(scenario: Scenario, scene: Scene, *, rate: float | None) -> None:
    found = scene.found
    scene.narrator.say("The clinics begin to work at the public name")
    clinics = await control.start_clinics(scene.layout, scene.ledger, rate)
    try:
        await asyncio.sleep(CALM_SECONDS)
        await scenario.act(scene)
        await asyncio.sleep(SETTLE_SECONDS)
    except HmsdrError as error:
        found.problem = str(error)
    finally:
        await clinics.stop()
    found.entries = Ledger.read(scene.ledger)
    try:
        await _compare(scene)
    except HmsdrError as error:
        found.problem = "; ".join(filter(None, (found.problem, str(error))))


async def _compare(scene: Scene) -> None:
    """What users were told against what the database has that writes at the end."""
    home = scene.found.switchback
    at_home = home is not None and home.status is RunStatus.SUCCEEDED
    target = scene.playbook.regions[scene.source if at_home else scene.target].postgres
    conninfo = f"host={target.host} port={target.port} user={target.user} dbname={target.database}"
    names = tables(scene.found.entries)
    scene.found.present = await present_ids(conninfo, names, deadline=_COMPARE_SECONDS)
    store = await open_store(scene.playbook)
    try:
        scene.found.log_head = (await store.head()).hash
    finally:
        await store.close()
