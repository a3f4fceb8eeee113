"""How fast a lost region is decided upon by the controllers of three sites, and how fast users are served again. Measures only.

`hmsdr lab up --ha`, clinics at work, the region killed, and nobody touches anything. The decision is the event in the log; what the
playbook's hold-down asks for is taken off.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.switchover import HOME, OTHER, streams
from hmsdr.control.chronicle import DECIDED
from hmsdr.control.following import follow
from hmsdr.errors import FailedError
from hmsdr.lab.control import break_, down, start_clinics, up
from hmsdr.lab.hms.ledger import Ledger
from hmsdr.lab.layout import Layout
from hmsdr.log.opening import open_store
from hmsdr.playbook.load import load
from hmsdr.runbook.launch import Watcher
from hmsdr.runbook.state import RunStatus

SPARE_SECONDS = 1.0
"""What detection may take beside the hold-down and one probe interval."""
_CALM_SECONDS = 3.0
_RUN_SECONDS = 120.0
_SETTLE_SECONDS = 4.0


async def measure(place: Path, rounds: int) -> dict[str, Any]:
    """`rounds` lost regions, each on a lab of its own below `place`.

    Raises:
        HmsdrError: a lab did not come up, or nobody failed over.
    """
    found = []
    for number in range(1, rounds + 1):
        layout = await up(place / f"detection-{number}", ha=True)
        try:
            found.append(await _lost(layout, place / f"detection-{number}.jsonl"))
        finally:
            await down(layout)
        last = found[-1]
        print(
            f"  round {number} of {rounds}: decided {last['decided']:.2f} s after the failure, of which "
            f"{last['hold_down']:g} s hold-down; users served after {last['served']:.1f} s",
            flush=True,
        )
    return {
        "detection_seconds": [each["decided"] - each["hold_down"] for each in found],
        "served_seconds": [each["served"] for each in found],
        "limit_seconds": found[0]["interval"] + SPARE_SECONDS,
        "details": found,
    }


async def _lost(layout: Layout, ledger: Path) -> dict[str, float]:
    playbook = load(layout.playbook)
    await streams(playbook, OTHER)
    thresholds = playbook.thresholds
    clinics = await start_clinics(layout, ledger)
    store = await open_store(playbook)
    try:
        await asyncio.sleep(_CALM_SECONDS)
        before = (await store.head()).seq
        fault = await break_(layout, "region-down", region=HOME)
        followed = await follow(store, before, Watcher(), deadline=_RUN_SECONDS)
        if followed.run.status is not RunStatus.SUCCEEDED:
            raise FailedError(
                "waiting for the failover", "it did not succeed", f"Its lab: {layout.directory}"
            )
        decided = next(each for each in await store.read(before) if each.kind == DECIDED)
        await asyncio.sleep(_SETTLE_SECONDS)
    finally:
        await clinics.stop()
        await store.close()
    return {
        "decided": (decided.at - datetime.fromtimestamp(fault.wall, UTC)).total_seconds(),
        "hold_down": thresholds.triggers.region_unreachable.total_seconds(),
        "interval": thresholds.probing.interval.total_seconds(),
        "served": _served(ledger, fault.wall) - fault.wall,
    }


def _served(ledger: Path, fault: float) -> float:
    """When a write was acknowledged by the other region for the first time, in UTC seconds."""
    written = (
        each for each in Ledger.read(ledger) if each.ok and each.kind == "write" and each.region == OTHER
    )
    first = min((each.ended_at for each in written if each.ended_at > fault), default=None)
    if first is None:
        raise FailedError("waiting for users to be served", "no write was acknowledged", "See the ledger")
    return first
