"""The journal's cost: the real runner on SQLite with steps that do nothing, beside two bare durable writes. Measures only."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, cast

from hmsdr.errors import FailedError
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, StepContext
from hmsdr.runbook.catalogue import Catalogue
from hmsdr.runbook.plan import Plan, PlannedStage, PlannedStep
from hmsdr.runbook.runner import Runner
from hmsdr.runbook.state import RunStatus
from hmsdr.runbook.systems import Systems

STEPS = 200


class _Nothing(Model):
    """No arguments."""


class Empty(Action[_Nothing]):
    """A step without work: what is left is the runner and its journal."""

    name: ClassVar[str] = "bench.empty"
    summary: ClassVar[str] = "nothing"
    Args = _Nothing

    async def check(self, context: StepContext, args: _Nothing) -> Check:  # noqa: ARG002
        """It always holds."""
        return Check(True)

    async def act(self, context: StepContext, args: _Nothing) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing."""
        return {}

    def manual(self, playbook: Playbook, args: _Nothing) -> Manual:  # noqa: ARG002
        """Nothing."""
        return Manual((), "", ())


async def measure(place: Path, rounds: int) -> dict[str, list[float]]:
    """`rounds` times both, in files below `place`; who goes first changes from round to round.

    Raises:
        FailedError: the run of empty steps did not succeed.
    """
    steps, bare = [], []
    for number in range(1, rounds + 1):
        if number % 2:
            steps.append(await per_step(place, number))
        bare.append(two_bare_writes(place, number))
        if not number % 2:
            steps.append(await per_step(place, number))
        print(f"  round {number} of {rounds}: step {steps[-1]:.2f} ms, bare {bare[-1]:.2f} ms", flush=True)
    return {"step_ms": steps, "two_bare_writes_ms": bare}


async def per_step(directory: Path, number: int) -> float:
    """Median milliseconds from one step's start to the next one's."""
    store = await SqliteStore.open(directory / f"journal-{number}.db", create=True, lease_seconds=4.0)
    try:
        systems = cast("Systems", None)  # no step asks for one
        state = await Runner(store, systems, Catalogue([Empty()]), f"bench-{number}").start(
            _plan(), "bench", {}
        )
        if state.status is not RunStatus.SUCCEEDED:
            raise FailedError("running empty steps", f"the run ended {state.status}", "See tests/runbook")
        starts = [
            event.at.timestamp()
            for event in await store.read(subject=state.run)
            if event.kind == "step.started"
        ]
    finally:
        await store.close()
    return 1000 * statistics.median(after - before for before, after in pairwise(starts))


def two_bare_writes(directory: Path, number: int) -> float:
    """Median milliseconds of two durable inserts, with the settings of the store."""
    connection = sqlite3.connect(directory / f"bare-{number}.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, body TEXT)")
    took = []
    for step in range(STEPS):
        began = time.perf_counter()
        for _ in range(2):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO events (body) VALUES (?)", (f"step {step} " + "x" * 300,))
            connection.execute("COMMIT")
        took.append(time.perf_counter() - began)
    connection.close()
    return 1000 * statistics.median(took)


def _plan() -> Plan:
    steps = tuple(
        (
            PlannedStep(
                key=f"all/{number}",
                title=f"step {number}",
                action=Empty.name,
                arguments={},
                deadline=timedelta(seconds=10),
                attempts=1,
                backoff=timedelta(milliseconds=1),
                on_failure="stop",
            ),
        )
        for number in range(STEPS)
    )
    return Plan(
        runbook="bench", title="Empty steps", mode="planned", parameters={}, epoch=1, playbook="bench",
        playbook_hash="0" * 64, stages=(PlannedStage(name="all", title="all", after=(), groups=steps),), rollback=None,
    )  # fmt: skip
