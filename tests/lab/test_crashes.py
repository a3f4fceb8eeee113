"""A failover whose runner is killed, by events and inside its steps, and finished by `hmsdr run resume` (FA-5)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from commands import begin, hmsdr
from hmsdr.lab import control
from hmsdr.lab.layout import DATABASE, Layout
from hmsdr.log.events import Event
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.runbook.launch import prepare
from hmsdr.runbook.systems import Systems
from hospital_state import EAST, WEST, State, epochs, events, look

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
POINTS = os.environ.get(
    "HMSDR_CRASH_POINTS", "4,12,fencing/hand-over,promotion/grant,promotion/postgres,dns-update/shift,33"
).split(",")
"""Where a failover is killed: after so many events, or inside this step, right after its start was journaled."""
KILL_SECONDS = 60.0
Seen = Sequence[Event]


def other(region: str) -> str:
    return WEST if region == EAST else EAST


def reached(point: str) -> Callable[[Seen], bool]:
    """Whether the events of a run have come to `point`."""
    if point.isdigit():
        return lambda seen: len(seen) >= int(point)
    return lambda seen: any(each.kind == "step.started" and each.data["step"] == point for each in seen)


async def ready(layout: Layout, source: str, target: str) -> None:
    """Wait until every gate is open: a standby that has just come up is measured a moment later."""
    playbook = load(layout.playbook)
    store = await SqliteStore.open(layout.store)
    systems = Systems(playbook, store)
    ends = time.monotonic() + 40
    try:
        while True:
            gates = (await prepare(playbook, systems, {"from": source, "to": target})).gates
            if all(gate.state == "passed" for gate in gates):
                return
            assert time.monotonic() < ends, gates
            await asyncio.sleep(0.1)
    finally:
        await systems.close()
        await store.close()


async def kill(process: subprocess.Popen[bytes], layout: Layout, known: int, point: str, said: Path) -> bool:
    """Kill `process` when the events after the first `known` have come to `point`; False when it ended before."""
    store = await SqliteStore.open(layout.store)
    ends = time.monotonic() + KILL_SECONDS
    try:
        while not reached(point)((await store.read())[known:]) and process.poll() is None:
            assert time.monotonic() < ends, f"{point} was never reached: {said.read_text()}"
            await asyncio.sleep(0.002)
    finally:
        await store.close()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert process.returncode in (0, -signal.SIGKILL), said.read_text()
    return process.returncode != 0


def begun(fresh: Seen, said: Path) -> str:
    """The run that was begun by what wrote `said`."""
    started = [each.subject for each in fresh if each.kind == "run.started"]
    assert len(started) == 1, said.read_text()
    return started[0]


async def timeline(layout: Layout, region: str) -> int:
    """Of the primary in `region`: each promotion begins a new one, so it counts them."""
    where = layout.regions[region].postgres
    async with await psycopg.AsyncConnection.connect(
        f"host={where.host} port={where.port} user=postgres dbname={DATABASE} connect_timeout=3"
    ) as connection:
        found = await (await connection.execute("SELECT pg_walfile_name(pg_current_wal_lsn())")).fetchone()
    assert found is not None
    return int(found[0][:8], 16)


def once(story: Seen) -> None:
    """Nothing was finished twice, and what can be counted was done at most once."""
    kinds = [each.kind for each in story]
    assert kinds.count("run.started") == kinds.count("run.succeeded") == 1
    assert kinds[-1] == "run.succeeded"
    done = [each.data["step"] for each in story if each.kind == "step.succeeded"]
    assert len(done) == len(set(done)), "a step was finished twice"


def starts(story: Seen, step: str) -> int:
    return sum(each.kind == "step.started" and each.data["step"] == step for each in story)


def as_undisturbed(after: State, before: State, target: str) -> None:
    """The mirror image of `before`: what a failover that nobody disturbed leaves."""
    source = other(target)
    assert after == replace(
        before,
        epoch=before.epoch + 1,
        holder=after.holder,
        weights={target: 100, source: 0},
        record_epoch=before.epoch + 1,
        primaries=(target,),
        replicas={target: before.replicas[source], source: before.replicas[target]},
        stores=after.stores,
    )
    assert after.holder is not None
    assert after.holder.endswith(f"@{target}")


@pytest.mark.req("FA-5", "FM-3", "DB-2", "DB-3", "RD-2")
@pytest.mark.parametrize("point", POINTS)
async def test_killed_in_the_middle_and_resumed_it_ends_as_if_nothing_had_been(
    module_lab: Layout, tmp_path: Path, point: str
) -> None:
    before = await look(module_lab)
    (source,) = before.primaries
    target = other(source)
    await ready(module_lab, source, target)
    promotions = await timeline(module_lab, source)
    known, said = len(await events(module_lab)), tmp_path / "said.txt"
    killed = await kill(
        begin("failover", source, target, lab=module_lab, said=said), module_lab, known, point, said
    )
    run = begun((await events(module_lab))[known:], said)
    if killed and point == POINTS[0]:
        refused = hmsdr("failover", source, target, lab=module_lab)
        assert (refused.status, f"hmsdr run resume {run}" in refused.err) == (2, True), refused
    resumed = hmsdr("run", "resume", run, lab=module_lab)
    assert resumed.status == 0, resumed
    after = await look(module_lab)
    as_undisturbed(after, before, target)
    ordinal = module_lab.regions[target].ordinal_name
    wanted = tuple(f"{store}-{ordinal}.hms.system.svc.cluster.local" for store in ("postgres", "redis"))
    assert {hosts for found in after.stores.values() for hosts in found.values()} == {wanted}
    assert [number for number, _ in await epochs(module_lab, target)] == list(range(1, after.epoch + 1))
    assert await timeline(module_lab, target) == promotions + 1, "promoted more than once"
    story = await events(module_lab, run)
    once(story)
    assert ("run.resumed" in {each.kind for each in story}) == killed
    if point == "fencing/hand-over":
        assert starts(story, point) == 2, "the kill was not inside the step"
    if point == POINTS[0]:
        again = hmsdr("run", "resume", run, lab=module_lab)
        assert again.status == 0, again
        assert len(await events(module_lab, run)) == len(story)


@pytest.mark.req("FA-5", "FA-2", "DB-1", "DB-2")
async def test_a_region_is_lost_and_so_are_the_runner_and_its_successor(
    module_lab: Layout, tmp_path: Path
) -> None:
    """Killed while the lease is waited out, and again right after the promotion began: the third one finishes it."""
    before = await look(module_lab)
    (source,) = before.primaries
    target = other(source)
    await ready(module_lab, source, target)
    promotions, known = await timeline(module_lab, source), len(await events(module_lab))
    await control.break_(module_lab, "region-down", region=source)
    said = tmp_path / "said.txt"
    first = begin("failover", source, target, lab=module_lab, said=said)
    assert await kill(first, module_lab, known, "fencing/free-authority", said), said.read_text()
    run = begun((await events(module_lab))[known:], said)
    second = begin("run", "resume", run, lab=module_lab, said=said)
    assert await kill(second, module_lab, known, "promotion/postgres", said), said.read_text()
    third = hmsdr("run", "resume", run, lab=module_lab)
    assert third.status == 0, third
    after = await look(module_lab, regions=(target,))
    assert (after.epoch, after.phase, after.record_epoch) == (before.epoch + 1, "held", before.epoch + 1)
    assert (after.primaries, after.weights) == ((target,), {target: 100, source: 0})
    assert after.replicas[target] == before.replicas[source]
    assert await timeline(module_lab, target) == promotions + 1, "promoted more than once"
    story = await events(module_lab, run)
    once(story)
    assert [each.kind for each in story].count("run.resumed") == 2
    assert starts(story, "fencing/free-authority") == 2, "the kill was not inside the wait"
    # The successor has seen nothing of the wait that died with its predecessor: it waits the whole lease itself.
    (freed,) = (
        each
        for each in story
        if each.kind == "step.succeeded" and each.data["step"] == "fencing/free-authority"
    )
    assert freed.data["output"]["proof"] == "lease waited out"
    lease = load(module_lab.playbook).database.lease.total_seconds()
    assert freed.data["output"]["seconds"] >= lease
    shown = hmsdr("run", "show", run, "--json", lab=module_lab).json()
    seconds = {stage["name"]: stage["seconds"] for stage in shown["stages"]}
    for stage in ("detection", "verification", "promotion", "dns-update", "scaling-up", "notification"):
        assert seconds[stage] is not None, stage
