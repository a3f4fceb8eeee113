"""What the clinics want: writes and reads in a fixed mix, and failed writes again with the same id. Pure but for its dice."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from hmsdr.lab.hms.entities import of_service

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 2.0
_REMEMBERED = 500
_MOST_PENDING = 2000
_READS = 0.4
_WRITES: Mapping[str, float] = {
    "patient": 0.3,
    "appointment": 0.3,
    "clinical": 0.2,
    "billing": 0.15,
    "auth": 0.05,
}
_FIRST_VISIT = datetime(2026, 1, 1, 8, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that a clinic wants; ``body`` is that of a write. ``tries`` are attempts before this one."""

    kind: Literal["write", "read"]
    service: str
    id: str
    path: str
    body: Mapping[str, object] | None = None
    tries: int = 0


class Workload:
    """Decides what is sent next, and learns what became of it. Only acknowledged writes are read or referred to."""

    def __init__(self, seed: int | None = None) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - synthetic load
        self._patients: deque[str] = deque(maxlen=_REMEMBERED)
        self._known: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)
        self._pending: list[tuple[float, int, Request]] = []
        self._order = itertools.count()
        self._turn = False

    def next(self, now: float) -> Request:
        """What to send at `now` (seconds of any steady clock). At most every second one repeats a failed write."""
        self._turn = not self._turn
        if self._turn and self._pending and self._pending[0][0] <= now:
            return heapq.heappop(self._pending)[2]
        if self._known and self._dice.random() < _READS:
            service, row_id = self._dice.choice(self._known)
            return Request("read", service, row_id, f"{_root(service)}/{row_id}")
        service = self._dice.choices(list(_WRITES), list(_WRITES.values()))[0]
        if not self._patients and service != "auth":
            service = "patient"
        row_id = str(UUID(int=self._dice.getrandbits(128), version=4))
        return Request("write", service, row_id, _root(service), self._body(service, row_id))

    def pause(self) -> float:
        """A random gap to the next request, of mean 1: requests come as people do, whatever became of earlier ones."""
        return self._dice.expovariate(1.0)

    def succeeded(self, request: Request) -> None:
        """It was done."""
        if request.kind == "write":
            self._known.append((request.service, request.id))
            if request.service == "patient":
                self._patients.append(request.id)

    def failed(self, request: Request, now: float, *, answered: bool) -> None:
        """It was not done, or not known to be.

        Args:
            request: what was sent.
            now: as for `next`.
            answered: the hospital works, and has not got what this was about: never ask for that again.
        """
        if answered:
            missing = {request.id, str((request.body or {}).get("patient_id"))}
            self._patients = deque((each for each in self._patients if each not in missing), _REMEMBERED)
            self._known = deque((each for each in self._known if each[1] not in missing), _REMEMBERED)
        elif request.kind == "write" and len(self._pending) < _MOST_PENDING:
            pause = min(_FIRST_PAUSE * 2**request.tries, _LONGEST_PAUSE) * self._dice.uniform(0.7, 1.3)
            again = Request(
                "write", request.service, request.id, request.path, request.body, request.tries + 1
            )
            heapq.heappush(self._pending, (now + pause, next(self._order), again))

    def _body(self, service: str, row_id: str) -> dict[str, object]:
        """Synthetic data only: nothing in it was ever true of a person."""
        dice = self._dice
        if service == "patient":
            born = f"{dice.randint(1930, 2020)}-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"
            own: dict[str, object] = {
                "name": f"Synthetic Patient {row_id[:8]}",
                "born": born,
                "clinic": f"clinic-{dice.randint(1, 8)}",
            }
        elif service == "auth":
            own = {"login": f"user-{row_id[:13]}", "role": "nurse"}
        else:
            own = {"patient_id": dice.choice(self._patients), **self._visit(service)}
        return {"id": row_id, **own}

    def _visit(self, service: str) -> dict[str, object]:
        if service == "appointment":
            at = _FIRST_VISIT + timedelta(minutes=15 * self._dice.randrange(10_000))
            return {"starts_at": at.isoformat(), "reason": "check-up"}
        if service == "clinical":
            return {
                "author": f"clinic-{self._dice.randint(1, 8)}",
                "text": "synthetic note, nothing to report",
            }
        return {"cents": self._dice.randint(1_000, 90_000), "item": "consultation"}


def _root(service: str) -> str:
    return f"/{service}-service/{of_service(service)[0].path}"
