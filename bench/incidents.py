"""What an incident of many events costs: folded from cold, gone on with from a snapshot, and read from the store. Measures only."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hmsdr.decide.incidents import Book, fold
from hmsdr.errors import FailedError
from hmsdr.incident.snapshot import beside, current, decode, encode
from hmsdr.log.events import Event, NewEvent
from hmsdr.log.sqlite import SqliteStore

EVENTS = 100_000
ALERTS = 5_000
"""So many different alerts are among them, which begin and end again and again."""
_NAME = "INC-1"


async def measure(place: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds and milliseconds, round by round, on one log of `EVENTS` events below `place`.

    Raises:
        FailedError: the snapshot says something else than the log.
    """
    path = place / "incidents.db"
    store = await SqliteStore.open(path, create=True)
    found: dict[str, list[float]] = {
        "fold_seconds": [],
        "read_and_fold_seconds": [],
        "snapshot_ms": [],
        "now_ms": [],
    }
    snapshot = beside(str(path))
    try:
        await _fill(store)
        for number in range(1, rounds + 1):
            # What one round holds in memory is no part of what the next thing costs: a command has a process of its own.
            found["fold_seconds"].append(_folded(await store.read()))
            gc.collect()
            snapshot.unlink(missing_ok=True)
            begun = time.perf_counter()
            book = await current(store, snapshot)
            found["read_and_fold_seconds"].append(time.perf_counter() - begun)
            text = json.dumps(encode(book))
            gc.collect()
            begun = time.perf_counter()
            again = decode(json.loads(text))
            found["snapshot_ms"].append(1000 * (time.perf_counter() - begun))
            if again != book:
                raise FailedError(
                    "reading a snapshot", "it says something else than the log", "See tests/incident"
                )
            del again, book
            # The store's thread holds what it read last until it is asked again.
            await store.head()
            gc.collect()
            begun = time.perf_counter()
            await current(store, snapshot)
            found["now_ms"].append(1000 * (time.perf_counter() - begun))
            print(f"  round {number} of {rounds}: {found['fold_seconds'][-1]:.2f} s, snapshot {found['now_ms'][-1]:.0f} ms", flush=True)  # fmt: skip
    finally:
        await store.close()
    return found


def _folded(events: Sequence[Event]) -> float:
    begun = time.perf_counter()
    fold(Book(), events)
    return time.perf_counter() - begun


async def _fill(store: SqliteStore) -> None:
    opened: dict[str, Any] = {"title": "x", "severity": "SEV-1", "roles": {}, "signals": []}
    events = [NewEvent("incident.opened", _NAME, "bench", opened)]
    while len(events) < EVENTS:
        events.append(_event(len(events)))
    head = await store.head()
    for start in range(0, EVENTS, 10_000):
        head = (await store.append(events[start : start + 10_000], expected=head)).head


def _event(number: int) -> NewEvent:
    """Alerts, the words that give them to the incident, notes, messages, ticks."""
    kind, key = number % 10, f"alert-{(number // 10) % ALERTS}"
    if kind in (0, 5):
        ended = kind == 5  # noqa: PLR2004 - the second of the two
        alert = {"key": key, "text": "p99 above 2 s", "services": ["patient"], "ended": ended}
        return NewEvent("alerts.received", "monitoring", "monitoring", {"alerts": [alert]})
    if kind == 1:
        return NewEvent("incident.joined", _NAME, "keeper", {"signals": [key]})
    if kind == 2:  # noqa: PLR2004 - the third of ten
        return NewEvent("incident.said", _NAME, "keeper", {"word": "update"})
    if kind == 3:  # noqa: PLR2004 - the fourth of ten
        return NewEvent("incident.ticked", _NAME, "Ada Quill", {"item": "gather", "evidence": "folder"})
    return NewEvent("incident.noted", _NAME, "Ada Quill", {"field": "impact", "text": "40 wards on paper"})
