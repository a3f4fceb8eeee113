"""A real failover and its floor, in turn, each on a fresh lab. Measures only: the lab and the command are as users have them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import floor
from bench.memory import peak_mb
from bench.parts import last
from hmsdr.drill.measures import execution_seconds
from hmsdr.drivers.agent import AgentClient
from hmsdr.errors import FailedError
from hmsdr.lab.control import break_, down, up
from hmsdr.lab.layout import Layout
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.runbook.launch import runs
from hmsdr.runbook.state import RunState

SOURCE, TARGET = "us-east-1", "us-west-2"
_RUN_SECONDS = 120.0
_LOOK_SECONDS = 0.02
_WHOLE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Ours:
    """One failover by hmsdr: execution in seconds, the runner's peak memory in MB (10^6 bytes).

    ``steps``: what was done once the right to write was free, with the seconds from then to its end;
    ``promotion``: parts of the promotion, as the agent took them.
    """

    seconds: float
    memory: float
    steps: dict[str, float]
    promotion: dict[str, float]


async def measure(place: Path, rounds: int) -> dict[str, Any]:
    """`rounds` pairs, in labs below `place`; who goes first changes from round to round.

    Raises:
        HmsdrError: a lab did not come up, or a failover did not succeed.
    """
    floors: list[floor.Floor] = []
    ours: list[Ours] = []
    for number in range(1, rounds + 1):
        for kind in ("floor", "hmsdr") if number % 2 else ("hmsdr", "floor"):
            layout = await up(place / f"lab-{number}-{kind}")
            try:
                await _measured_lag(layout)
                await break_(layout, "region-down", region=SOURCE)
                if kind == "floor":
                    database = load(layout.playbook).database
                    before = database.lease.total_seconds() * (1 + database.drift_margin)
                    floors.append(await floor.measure(layout, SOURCE, TARGET, before=before))
                    seconds = floors[-1].total
                else:
                    ours.append(await _ours(layout))
                    seconds = ours[-1].seconds
            finally:
                await down(layout)
            print(f"  round {number} of {rounds}: {kind:<6}{1000 * seconds:6.0f} ms", flush=True)
    return {
        "floor_seconds": [each.total for each in floors],
        "execution_seconds": [each.seconds for each in ours],
        "peak_memory_mb": [each.memory for each in ours],
        "floor_details": [asdict(each) for each in floors],
        "execution_details": [each.steps for each in ours],
        "promotion_parts": [each.promotion for each in ours],
    }


async def _measured_lag(layout: Layout) -> None:
    """Until the standby's agent has measured its lag: a lab that was never whole has no region to lose."""
    agent = AgentClient(load(layout.playbook).regions[TARGET].agent)
    ends = time.monotonic() + _WHOLE_SECONDS
    try:
        while (await agent.status(deadline=5)).replication.lag_seconds is None:
            if time.monotonic() > ends:
                raise FailedError(
                    "preparing a failover", f"{TARGET} has not measured its lag", "Try again: the lab is odd"
                )
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await agent.close()


async def _ours(layout: Layout) -> Ours:
    """`hmsdr failover` as a person would start it, and what its log says of it."""
    process = subprocess.Popen(  # noqa: ASYNC220 - looked at while it runs, and not waited for in between
        [sys.executable, "-m", "hmsdr", "failover", SOURCE, TARGET],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "HMSDR_PLAYBOOK": str(layout.playbook)},
    )
    try:
        memory = await _peak_until_ended(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    if process.returncode != 0:
        raise FailedError(
            "measuring a failover",
            f"`hmsdr failover` ended with status {process.returncode}",
            "What it wrote stands above; try it by hand on a lab",
        )
    store = await SqliteStore.open(layout.store)
    try:
        run = runs(await store.read())[-1]
    finally:
        await store.close()
    seconds = execution_seconds(run)
    if seconds is None:
        raise FailedError(
            f"reading run {run.run}", "it has no stage fencing or validation", "Was the runbook changed?"
        )
    promoted = last(layout.regions[TARGET].database_log, "promote.done")
    return Ours(seconds, memory, _steps(run), promoted["parts"])


async def _peak_until_ended(process: subprocess.Popen[bytes]) -> float:
    """Its high-water mark, looked at until it has ended."""
    peak = 0.0
    ends = time.monotonic() + _RUN_SECONDS
    while process.poll() is None:
        if time.monotonic() > ends:
            raise FailedError(
                "measuring a failover", f"not done after {_RUN_SECONDS:g} s", "Try it by hand on a lab"
            )
        peak = max(peak, peak_mb(process.pid))
        await asyncio.sleep(_LOOK_SECONDS)
    return peak


def _steps(run: RunState) -> dict[str, float]:
    free = run.stages["fencing"].ended_at
    ended = {step.key: run.record(step.key).ended_at for step in run.plan.steps()}
    return {
        key: round((at - free).total_seconds(), 4)
        for key, at in ended.items()
        if free is not None and at is not None and at > free
    }
