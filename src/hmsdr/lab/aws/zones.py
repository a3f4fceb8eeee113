"""State of the strict layer: zones, their records, changes that are not in sync yet, and the request budget.

What a change has done is served (to the lab's DNS) only when it is INSYNC. Saved to disk before it is answered,
so that a restart of the process loses nothing it acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hmsdr.lab.aws.records import Change, Key, RecordSet, apply, defaults, normalise


@dataclass(slots=True)
class _Pending:
    zone: str
    records: dict[Key, RecordSet]
    submitted: float
    insync_at: float


@dataclass(slots=True)
class Zone:
    """A hosted zone: what was accepted, and what is in sync."""

    name: str
    accepted: dict[Key, RecordSet] = field(default_factory=dict)
    served: dict[Key, RecordSet] = field(default_factory=dict)


class Zones:
    """All hosted zones of the lab."""

    def __init__(self, file: Path, insync_delay: float) -> None:
        self._file = file
        self._delay = insync_delay
        self._zones: dict[str, Zone] = {}
        self._changes: dict[str, _Pending] = {}
        self._processing: set[str] = set()
        self._moved = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.serial = 1
        if file.exists():
            self._load(json.loads(file.read_text()))

    def add(self, zone: str, name: str, servers: Sequence[str]) -> None:
        """Know a zone that was created behind, for which `servers` answer."""
        if zone not in self._zones:
            first = defaults(normalise(name), servers)
            self._zones[zone] = Zone(normalise(name), dict(first), dict(first))
            self._save()
            self._tell()

    def forget(self, zone: str) -> None:
        """A zone was deleted behind."""
        if self._zones.pop(zone, None) is not None:
            self._save()
            self._tell()

    @contextlib.contextmanager
    def processing(self, zone: str) -> Iterator[bool]:
        """While one change of a zone is worked on; gives False if another one is."""
        if zone in self._processing:
            yield False
            return
        self._processing.add(zone)
        try:
            yield True
        finally:
            self._processing.discard(zone)

    def get(self, zone: str) -> Zone | None:
        """The zone with this id."""
        return self._zones.get(zone)

    def change(self, zone: str, batch: Sequence[Change]) -> str:
        """Accept a batch; the change's id.

        Raises:
            InvalidChangeBatchError: refused as a whole.
            KeyError: no such zone.
        """
        found = self._zones[zone]
        found.accepted = apply(found.accepted, batch, found.name)
        change = f"C{int(time.time() * 1e6):X}{len(self._changes):04X}"
        now = time.time()
        self._changes[change] = _Pending(zone, dict(found.accepted), now, now + self._delay)
        self._save()
        task = asyncio.create_task(self._sync(change))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return change

    def status(self, change: str) -> tuple[str, float] | None:
        """PENDING or INSYNC, and when it was submitted; None for an unknown change."""
        pending = self._changes.get(change)
        if pending is None:
            return None
        return ("PENDING" if time.time() < pending.insync_at else "INSYNC"), pending.submitted

    def counts(self) -> dict[str, int]:
        """How many record sets each zone has, by its id."""
        return {zone: len(found.accepted) for zone, found in self._zones.items()}

    def served(self) -> list[RecordSet]:
        """Every record that is in sync."""
        return [record for zone in self._zones.values() for record in zone.served.values()]

    async def newer(self, serial: int, seconds: float) -> int:
        """Wait, at most `seconds`, until something newer than `serial` is in sync; the serial now."""
        if self.serial <= serial:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), seconds)
        return self.serial

    async def _sync(self, change: str) -> None:
        pending = self._changes[change]
        await asyncio.sleep(max(0.0, pending.insync_at - time.time()))
        if pending.zone in self._zones:
            self._zones[pending.zone].served = pending.records
        self._tell()

    def _tell(self) -> None:
        self.serial += 1
        self._moved.set()
        self._moved = asyncio.Event()

    def _save(self) -> None:
        raw = {
            zone: {"name": item.name, "records": [asdict(record) for record in item.accepted.values()]}
            for zone, item in self._zones.items()
        }
        new = self._file.with_suffix(".new")
        with new.open("w") as file:
            json.dump(raw, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)

    def _load(self, raw: Mapping[str, dict[str, object]]) -> None:
        for zone, item in raw.items():
            records: dict[Key, RecordSet] = {}
            for value in item["records"]:  # type: ignore[attr-defined]
                record = RecordSet(**{**value, "values": tuple(value["values"])})
                records[record.key] = record
            records = defaults(str(item["name"]), ()) | records
            self._zones[zone] = Zone(str(item["name"]), dict(records), records)


class Budget:
    """Route 53 allows an account five requests a second: a token bucket."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._rate = per_second
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Whether one more request is allowed now."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
