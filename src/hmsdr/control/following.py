"""Following a failover that somebody else decides and carries out: the log is read, and nothing is done."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hmsdr.control.chronicle import DECIDED, REFUSED
from hmsdr.errors import FailedError
from hmsdr.log.events import Event
from hmsdr.log.store import EventLog, StoreError
from hmsdr.runbook.launch import Watcher
from hmsdr.runbook.state import RunState, RunStatus, apply

_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Followed:
    """What was decided (as `decided_in` says it; None when nothing was), and the run that carried it out, ended."""

    decided: dict[str, Any] | None
    run: RunState


async def follow(log: EventLog, after: int, watcher: Watcher, *, deadline: float) -> Followed:
    """Follow `log` from event `after` on until a run that was begun has ended.

    Args:
        log: the store.
        after: the last event from before.
        watcher: told of the run.
        deadline: in seconds; a store that is silent for a while meanwhile is asked again.

    Raises:
        FailedError: no run, or it did not end, within `deadline`; or whoever leads could not begin one.
    """
    story = _Story(watcher)
    ends = asyncio.get_running_loop().time() + deadline
    while asyncio.get_running_loop().time() < ends:
        try:
            events = await log.read(after)
        except StoreError:
            events = []  # an election, say
        for event in events:
            after = event.seq
            story.take(event)
        if story.run is not None and story.run.status is not RunStatus.RUNNING:
            return Followed(story.decided, story.run)
        await asyncio.sleep(_PAUSE)
    found = story.refused or "no failover was begun"
    if story.run is not None:
        found = f"run {story.run.run} has not ended: `hmsdr run show {story.run.run}`"
    raise FailedError(
        "waiting for the controllers to fail over", found, "The controllers' logs say what they see"
    )


class _Story:
    """What the log told so far."""

    def __init__(self, watcher: Watcher) -> None:
        self.decided: dict[str, Any] | None = None
        self.refused = ""
        self.run: RunState | None = None
        self._watcher = watcher

    def take(self, event: Event) -> None:
        """One event more."""
        if event.kind == DECIDED and self.decided is None:
            self.decided = decided_in(event)
        elif event.kind == REFUSED:
            self.refused = str(event.data.get("found", ""))
        elif event.kind == "run.started" and self.run is None:
            self.run = apply(None, event)
            self._watcher.on_start(self.run.plan, self.run.run)
        elif self.run is not None and event.subject == self.run.run:
            self.run = apply(self.run, event)
            self._watcher.on_change(self.run)


def decided_in(event: Event) -> dict[str, Any]:
    """Why, since when, and what each site that found the region lost saw on each path.

    ``hold_down_seconds`` is the playbook's, None for a cause that has none; ``seen_seconds`` how long whoever saw it longest had.
    """
    finding = event.data.get("finding", {"lost": ()})
    said = {site: each for site, each in event.data.get("said", {}).items() if site in finding["lost"]}
    longest = max((each["lost_for"] for each in said.values()), default=0.0)
    return {
        "kind": event.data["kind"],
        "region": event.subject,
        "unreachable_since": (event.at - timedelta(seconds=longest)).isoformat(),
        "decided_at": event.at.isoformat(),
        "hold_down_seconds": event.data.get("hold_down_seconds"),
        "seen_seconds": longest,
        "by": event.actor,
        "severity": event.data.get("severity"),
        "finding": finding,
        "evidence": {
            f"{path}, seen from {site}": words
            for site, each in said.items()
            for path, words in each["evidence"].items()
        },
    }
