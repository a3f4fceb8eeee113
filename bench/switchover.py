"""A planned database switchover beside `patronictl switchover`: how long writers are not answered. Measures only.

Same machine, same programs of PostgreSQL, the same writers against both, in turn, each on a cluster of its own that is taken down
before the other one comes up: once there and once back.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.parts import last, parts
from bench.patroni import NODES, PatroniCluster
from bench.writers import WRITERS, DatabaseClient, PublicClient, Writers
from hmsdr.drivers.agent import AgentClient
from hmsdr.errors import FailedError
from hmsdr.lab.control import down, up
from hmsdr.lab.layout import DATABASE, Layout
from hmsdr.log.opening import open_store
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.launch import runs

HOME, OTHER = "us-east-1", "us-west-2"
RUNBOOK = "database-failover"
_CALM_SECONDS = 2.0
_RUN_SECONDS = 60.0
_WHOLE_SECONDS = 30.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Switch:
    """One switchover: the longest silence of a client of the database and of a clinic (None: there are none), in seconds.

    ``command``: from its start to its end; ``lost``: acknowledged writes that are not there afterwards;
    ``errors``: what clinics were answered that was no acknowledgement, in the whole time since the switchover before; ``steps``: when
    each ended; ``parts``: of what the clinics' silence consists.
    """

    database: float
    clinics: float | None
    command: float
    lost: int
    errors: int | None
    steps: dict[str, float]
    parts: dict[str, float]


async def measure(place: Path, rounds: int) -> dict[str, Any]:
    """`rounds` pairs of two switchovers each, in clusters below `place`; who goes first changes from round to round.

    Raises:
        HmsdrError: a cluster did not come up, or a switchover did not succeed.
    """
    found: dict[str, list[Switch]] = {"hmsdr": [], "patroni": []}
    for number in range(1, rounds + 1):
        for kind in ("hmsdr", "patroni") if number % 2 else ("patroni", "hmsdr"):
            below = place / f"switchover-{number}-{kind}"
            pair = await (_ours(below) if kind == "hmsdr" else _patroni(below))
            found[kind] += pair
            shown = ", ".join(
                f"{1000 * each.database:.0f} ms"
                + (f" (clinics {1000 * each.clinics:.0f})" if each.clinics else "")
                for each in pair
            )
            print(f"  round {number} of {rounds}: {kind:<8}{shown}", flush=True)
    ours, theirs = found["hmsdr"], found["patroni"]
    return {
        "database_seconds": [each.database for each in ours],
        "clinics_seconds": [each.clinics for each in ours],
        "patroni_seconds": [each.database for each in theirs],
        "lost": sum(each.lost for each in ours),
        "patroni_lost": sum(each.lost for each in theirs),
        "errors": sum(each.errors or 0 for each in ours),
        "load": list(os.getloadavg()),
        "details": [asdict(each) for each in ours],
        "patroni_details": [asdict(each) for each in theirs],
    }


async def _patroni(place: Path) -> list[Switch]:
    cluster = PatroniCluster(place)
    try:
        await cluster.up()
        await cluster.settled(NODES[0])
        clients = [DatabaseClient(list(cluster.postgres.values()), "postgres") for _ in range(WRITERS)]
        await clients[0].prepare()
        writers = Writers([each.write for each in clients])
        writers.start()
        switches = []
        try:
            for source, target in (NODES, NODES[::-1]):
                await asyncio.sleep(_CALM_SECONDS)
                began = time.monotonic()
                await cluster.switch(source, target)
                ended = time.monotonic()
                await writers.all_wrote(ended, deadline=_WHOLE_SECONDS)
                gap = writers.gap(began, time.monotonic())
                lost = await clients[0].missing(writers.ids)
                switches.append(Switch(gap, None, ended - began, lost, None, {}, {}))
                await cluster.settled(target)
        finally:
            await writers.stop()
            for client in clients:
                client.close()
    finally:
        await cluster.down()
    return switches


async def _ours(place: Path) -> list[Switch]:
    layout = await up(place)
    try:
        playbook = load(layout.playbook)
        await streams(playbook, OTHER)
        servers = [layout.regions[name].postgres for name in (HOME, OTHER)]
        clients = [DatabaseClient(servers, DATABASE) for _ in range(WRITERS)]
        public = [PublicClient(layout) for _ in range(WRITERS)]
        await clients[0].prepare()
        writers, clinics = Writers([each.write for each in clients]), Writers([each.write for each in public])
        writers.start()
        clinics.start()
        switches: list[Switch] = []
        try:
            for source, target in ((HOME, OTHER), (OTHER, HOME)):
                await asyncio.sleep(_CALM_SECONDS)
                began = time.monotonic()
                await _run(layout, source, target)
                ended = time.monotonic()
                for each in (writers, clinics):
                    await each.all_wrote(ended, deadline=_WHOLE_SECONDS)
                now = time.monotonic()
                lost = await clients[0].missing(writers.ids) + await clients[0].missing(
                    clinics.ids, "patients"
                )
                # The rest of the run's work, pods that are started again among it, is over: errors of all of it are counted.
                await _follow(playbook, source, target)
                switches.append(
                    Switch(
                        writers.gap(began, now),
                        clinics.gap(began, now),
                        ended - began,
                        lost,
                        clinics.failures - sum(each.errors or 0 for each in switches),
                        await _steps(playbook),
                        _parts(layout, source, target, clinics.silence(began, now)),
                    )
                )
        finally:
            for each in (writers, clinics):
                await each.stop()
            for client in clients:
                client.close()
            for clinic in public:
                await clinic.close()
    finally:
        await down(layout)
    return switches


async def _run(layout: Layout, source: str, target: str) -> None:
    """`hmsdr run start`, as a person would."""
    process = subprocess.Popen(  # noqa: ASYNC220 - waited for in a thread: the writers must go on
        [sys.executable, "-m", "hmsdr", "run", "start", RUNBOOK, f"from={source}", f"to={target}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "HMSDR_PLAYBOOK": str(layout.playbook)},
    )
    try:
        output, _ = await asyncio.to_thread(process.communicate, timeout=_RUN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    if process.returncode != 0:
        said = output.decode(errors="replace").strip()[-800:]
        raise FailedError(f"hmsdr run start {RUNBOOK}", said, "Try it by hand")


async def _follow(playbook: Playbook, source: str, target: str) -> None:
    """The old side follows the new one, so that it can take over again."""
    own, new = playbook.regions[source], playbook.regions[target].postgres
    store = await open_store(playbook)
    agent = AgentClient(own.agent)
    try:
        epoch = (await store.read_authority()).epoch
        await agent.follow(
            epoch=epoch,
            primary_host=new.host,
            primary_port=new.port,
            slot=own.postgres.slot,
            deadline=_WHOLE_SECONDS,
        )
    finally:
        await agent.close()
        await store.close()
    await streams(playbook, source)


async def streams(playbook: Playbook, region: str) -> None:
    """Until the region's standby streams and has measured its lag."""
    agent = AgentClient(playbook.regions[region].agent)
    ends = time.monotonic() + _WHOLE_SECONDS
    try:
        while True:
            seen = (await agent.status(deadline=5)).replication
            if seen.streaming and seen.lag_seconds is not None:
                return
            if time.monotonic() > ends:
                raise FailedError("preparing a switchover", f"{region} does not stream", "Try again")
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await agent.close()


def _parts(layout: Layout, source: str, target: str, silence: tuple[float, float]) -> dict[str, float]:
    """What both agents say of it; `silence` in monotonic seconds."""
    fenced, promoted = (
        last(layout.regions[region].database_log, event)
        for region, event in ((source, "fence.confirmed"), (target, "promote.done"))
    )
    offset = time.time() - time.monotonic()
    return parts(fenced, promoted, (silence[0] + offset, silence[1] + offset))


async def _steps(playbook: Playbook) -> dict[str, float]:
    """When each step ended, in seconds from the start of the one that takes the right to write away."""
    store = await open_store(playbook)
    try:
        run = runs(await store.read())[-1]
    finally:
        await store.close()
    ended = {step.key: run.record(step.key).ended_at for step in run.plan.steps()}
    began = run.record("fencing/hand-over").started_at
    return {
        key: round((at - began).total_seconds(), 4)
        for key, at in ended.items()
        if began is not None and at is not None and at > began
    }
