"""A run from judging its gates to its end: what the command line, the drill and the controller share (FM-1, FM-3).

Gates are judged in decide/, the plan is frozen and run by the runner; here they are put in order, on one store, by
one runner at a time. Nothing is printed.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from hmsdr.decide.authority import Holder
from hmsdr.decide.gates import Gate, GateState, LagSeen, evaluate, refusing
from hmsdr.errors import RefusedError
from hmsdr.log.events import Event
from hmsdr.log.opening import open_store
from hmsdr.log.store import Store, StoreError
from hmsdr.playbook.model import Playbook
from hmsdr.runbook import definition
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.freeze import freeze
from hmsdr.runbook.homecoming import WEIGH, home_gates, share_reached
from hmsdr.runbook.observe import cache_mode_of, mode_of, observations, sent_to
from hmsdr.runbook.outage_clock import SEEN_AT
from hmsdr.runbook.place import runners_place
from hmsdr.runbook.plan import Mode, Plan
from hmsdr.runbook.remainder import handed_back, refuse_following_as_holder, rest
from hmsdr.runbook.runner import Runner
from hmsdr.runbook.state import RunState, RunStatus, fold
from hmsdr.runbook.systems import Systems
from hmsdr.runbook.wayback import refuse_way_back, way_back

REGIONAL = "regional-failover"
HAND_BACK = "hand-back"
GRANT = "authority.grant"
"""The action that gives the right to write to another instance."""
FREE = "authority.free"
"""The one that takes it away: without it beside the grant, the right only goes back to who handed it over."""
PROMOTE_CACHE = "redis.promote"
"""The one that makes a Redis the primary: without a grant beside it, the cache moves alone."""
SHIFT = "dns.shift"
"""The one that sends users elsewhere."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan and what was observed when it was made."""

    plan: Plan
    gates: tuple[Gate, ...]
    source_seen_at: datetime | None = None
    """When anything of a source that does not answer was last seen: from then on users may have been without it."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """Gates that a named person overrules for a reason; kept with the run for good."""

    gates: tuple[str, ...] = ()
    reason: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told while it goes on: gates judged, run begun, the fold after each event, what a step waits for."""

    on_gates: Callable[[Sequence[Gate]], None] = field(default=lambda _gates: None)
    on_start: Callable[[Plan, str], None] = field(default=lambda _plan, _run: None)
    on_change: Callable[[RunState], None] = field(default=lambda _state: None)
    on_progress: Callable[[str, str], None] = field(default=lambda _step, _text: None)


async def prepare(
    playbook: Playbook,
    systems: Systems,
    parameters: Mapping[str, str],
    *,
    runbook: str = REGIONAL,
    events: Sequence[Event] = (),
) -> Prepared:
    """Observe, judge the gates, freeze the plan. Changes nothing.

    Gates are those of FM-1; going home has more (SW-1), some of which are about `events`, the log's. A runbook that moves no right
    to write has none.

    Raises:
        RefusedError: no such runbook or region, or failing over to itself, or the wrong way round.
    """
    found = definition.load(definition.find(runbook))
    record = await systems.authority.read_authority()
    catalogue = installed()

    users: str | None = None
    share = 0

    def frozen(mode: Mode, epoch: int) -> Plan:
        return freeze(
            found, playbook, catalogue, parameters, mode=mode, epoch=epoch, users=users, share=share
        )

    # Frozen once before anything is asked, so that wrong names are refused at once.
    plan = frozen("unplanned", record.epoch)
    refuse_way_back(plan, playbook)
    if found.mentions("users", "idle", "role"):
        users = next(iter(await sent_to(systems)), _region_of(playbook, record.holder))
    if found.mentions("share"):
        share = await share_reached(systems, parameters["to"])
    actions = {step.action for step in plan.steps()}
    if GRANT not in actions:
        refuse_following_as_holder(plan, playbook, record)
        alone = PROMOTE_CACHE in actions and parameters.get("from") in playbook.regions
        mode = await cache_mode_of(systems, parameters["from"]) if alone else "unplanned"
        return Prepared(frozen(mode, record.epoch), ())
    if not {"from", "to"} <= parameters.keys():
        raise RefusedError(
            f"planning {runbook}",
            f"it grants the right to write and has no parameters 'from' and 'to' (it has: {', '.join(parameters)})",
            "Name its regions so: the gates of a failover are about them",
        )
    source, target = parameters["from"], parameters["to"]
    if FREE not in actions:
        return Prepared(handed_back(playbook, record, target, frozen), ())
    if record.holder is None or record.holder.instance != playbook.regions[target].postgres.instance:
        plan = frozen(await mode_of(systems, source), record.epoch)
    else:
        plan = await rest(systems, runbook, record, source, target, frozen)
    planned = plan.mode == "planned"
    seen = await observations(
        systems,
        source,
        target,
        way_back(plan),
        serves=planned and not plan.granted and bool(actions & {SHIFT, WEIGH}),
        cache=planned and PROMOTE_CACHE in actions,
    )
    gates = evaluate(seen, playbook.thresholds.gates)
    if WEIGH in actions:
        gates += await home_gates(systems, plan, events)
    return Prepared(plan, gates, _source_seen_at(seen.lag) if plan.mode == "unplanned" else None)


def _source_seen_at(lag: LagSeen | None) -> datetime | None:
    if lag is None:
        return None
    return datetime.now(UTC) - min(lag.age, lag.gap.age if lag.gap is not None else lag.age)


def _region_of(playbook: Playbook, holder: Holder | None) -> str | None:
    """The region of the database that holds the right to write."""
    held = (
        name
        for name, region in playbook.regions.items()
        if holder and region.postgres.instance == holder.instance
    )
    return next(held, None)


async def launch(
    playbook: Playbook,
    parameters: Mapping[str, str],
    *,
    by: str,
    runbook: str = REGIONAL,
    overrides: Overrides = Overrides(),
    context: Mapping[str, Any] | None = None,
    watcher: Watcher = Watcher(),
) -> RunState:
    """Judge the gates and, when they allow it, run a runbook to its end.

    Args:
        playbook: the hospital's.
        parameters: of the runbook; for a failover ``from`` and ``to``.
        by: who asked for it, for the record.
        runbook: a shipped one's name, or a file.
        overrides: gates that are overruled.
        context: what made it necessary, as JSON, for the record.
        watcher: who is told.

    Raises:
        RefusedError: a gate refuses, another run is under way or unfinished, the parameters are wrong, or the journal
            cannot be written to begin with.
        StoreError: the journal cannot be written any more; nothing was done that it does not say.
    """
    begun: list[str] = []

    def changed(state: RunState) -> None:
        begun.append(state.run)
        watcher.on_change(state)

    async def run() -> RunState:
        async with _opened(playbook) as (store, systems):
            unfinished = await _has_unfinished(store)
            async with runners_place(playbook, store, unfinished=unfinished) as term:
                return await begin(
                    store,
                    systems,
                    parameters,
                    by=by,
                    runbook=runbook,
                    overrides=overrides,
                    context=context,
                    watcher=replace(watcher, on_change=changed),
                    term=term,
                )

    try:
        return await run()
    except StoreError as error:
        if begun:
            raise
        # A journal that does not take even the first event is a refusal: nothing was done.
        raise RefusedError(error.doing, f"{error.found}; nothing was done", error.remedy) from error


async def begin(
    store: Store,
    systems: Systems,
    parameters: Mapping[str, str],
    *,
    by: str,
    runbook: str = REGIONAL,
    overrides: Overrides = Overrides(),
    context: Mapping[str, Any] | None = None,
    watcher: Watcher = Watcher(),
    term: int | None,
    epoch: int | None = None,
) -> RunState:
    """The same for who has the runner's place already; `term` is the one to write under, None begins one.

    With an `epoch` it was decided under that one, and is void under any other.

    Raises:
        RefusedError: as for `launch`, or the epoch is another one now.
        StoreError: as for `launch`.
    """
    events = await store.read()
    refuse_unfinished(events)
    prepared = await prepare(systems.playbook, systems, parameters, runbook=runbook, events=events)
    if epoch is not None and prepared.plan.epoch != epoch:
        raise RefusedError(
            "starting the run",
            f"it was decided under epoch {epoch}, and the plan would be for epoch {prepared.plan.epoch}: void",
            "Nothing is to be done: what is decided now is decided from what is seen now",
        )
    watcher.on_gates(prepared.gates)
    refuse_gates(prepared.gates, overrides.gates)
    name = systems.run_name()
    watcher.on_start(prepared.plan, name)
    runner = _runner(store, systems, name, watcher, term)
    return await runner.start(prepared.plan, by, _recorded(prepared, overrides, context or {}))


def _recorded(prepared: Prepared, overrides: Overrides, context: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept with the run besides its plan."""
    seen_at = prepared.source_seen_at
    return {
        "gates": [asdict(gate) for gate in prepared.gates],
        SEEN_AT: None if seen_at is None else seen_at.isoformat(),
        "overrides": [
            {"gate": gate.name, "reason": overrides.reason, "by": overrides.by}
            for gate in prepared.gates
            # One that passed was overruled by nobody, whatever was typed.
            if gate.name in overrides.gates and gate.state is not GateState.PASSED
        ],
        **context,
    }


@contextlib.asynccontextmanager
async def _opened(playbook: Playbook) -> AsyncIterator[tuple[Store, Systems]]:
    store = await open_store(playbook)
    systems = Systems(playbook, store)
    try:
        yield store, systems
    finally:
        await systems.close()
        await store.close()


async def resume(playbook: Playbook, name: str, watcher: Watcher = Watcher()) -> RunState:
    """Go on with run `name`, whose runner died.

    Raises:
        RefusedError: there is no such run, or its runner is alive.
    """
    async with _opened(playbook) as (store, systems):
        unfinished = await _has_unfinished(store)
        async with runners_place(playbook, store, unfinished=unfinished) as term:
            return await go_on(store, systems, name, watcher, term=term)


async def go_on(
    store: Store, systems: Systems, name: str, watcher: Watcher = Watcher(), *, term: int | None
) -> RunState:
    """The same for who has the runner's place already.

    Raises:
        RefusedError: there is no such run.
    """
    state = fold(await store.read(subject=name))
    if state is not None and state.status is RunStatus.RUNNING:
        watcher.on_start(state.plan, name)
    return await _runner(store, systems, name, watcher, term).resume()


def _runner(store: Store, systems: Systems, name: str, watcher: Watcher, term: int | None) -> Runner:
    return Runner(
        store,
        systems,
        installed(),
        name,
        on_change=watcher.on_change,
        on_progress=watcher.on_progress,
        term=term,
    )


async def _has_unfinished(store: Store) -> bool:
    return any(state.status is RunStatus.RUNNING for state in runs(await store.read()))


def new_run_name() -> str:
    """A name that sorts by time and is used once."""
    return f"run-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def runs(events: Sequence[Event]) -> list[RunState]:
    """Every run in `events`, in the order in which they were started."""
    started = [event.subject for event in events if event.kind == "run.started"]
    found = [fold(event for event in events if event.subject == name) for name in started]
    return [state for state in found if state is not None]


def refuse_unfinished(events: Sequence[Event]) -> None:
    """Refuse to start while the log has a run that is not finished.

    Raises:
        RefusedError: there is one.
    """
    for state in runs(events):
        if state.status is RunStatus.RUNNING:
            raise RefusedError(
                "starting a run",
                f"run {state.run} ({state.plan.title}) is not finished, and its runner is gone",
                f"`hmsdr run resume {state.run}`, or `hmsdr run abort {state.run} --reason TEXT --by NAME` and then resume",
            )


def refuse_gates(gates: Sequence[Gate], overrides: Sequence[str] = ()) -> None:
    """Refuse while a gate is closed that is not overruled.

    Raises:
        RefusedError: with every closed gate and the first one's remedy.
    """
    closed = refusing(gates, overrides)
    if closed:
        raise RefusedError(
            "starting the run",
            "; ".join(f"gate {gate.name} {gate.state}: {gate.observed}" for gate in closed),
            f"{closed[0].remedy}. To overrule: --override {closed[0].name} --reason TEXT --by NAME",
        )
