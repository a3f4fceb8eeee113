"""A site's controller: it looks at both regions, tells the council, follows the log, and leads when nobody else does (FA-1..5).

Crash-only: whatever it knows is in the store or can be seen again, so one that loses the lead, or cannot go on, ends, and whoever
started it starts it anew. What it does as the leader is `hmsdr.control.leader`; here nothing is decided about a failover.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hmsdr.control import endpoints
from hmsdr.control.chronicle import Chronicle
from hmsdr.control.conditions import Facts
from hmsdr.control.facets import Answer, Seen
from hmsdr.control.leader import Leader
from hmsdr.control.logs import log
from hmsdr.control.means import Means
from hmsdr.control.observer import Observer
from hmsdr.control.proctable import boottime
from hmsdr.control.watch import fresh
from hmsdr.control.weighing import Heard, region_of
from hmsdr.decide.leadership import Sighting, vacant, watched
from hmsdr.decide.leading import Stay
from hmsdr.decide.outage import Sight, Watch
from hmsdr.drivers.http import HttpProbe
from hmsdr.errors import HmsdrError, RefusedError
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.log.store import EventLog, Sitting, Store, StoreError, StoreFullError
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.place import Lead, LeadLostError, patience

_ROUNDS = 6
"""In a leader's patience, at least."""
_TELL_SECONDS = 10.0
SEEN, SERVICE_SEEN, SYSTEM_SEEN = "region.seen", "service.seen", "system.seen"


@dataclass
class Standing:
    """What the controller tells of itself: `/readyz`, `/metrics`."""

    answered_at: float | None = None
    """When the store answered last (boot-time clock)."""
    store_full: bool = False
    """Whether it said last that it has no space left."""
    copied: int = 0
    """The last event that is in the local copy."""
    leads: bool = False
    term: int = 0
    words: dict[str, float] = field(default_factory=dict)
    """Age of each site's last word, in seconds."""


class Controller:
    """One life of the controller of `site`.

    Args:
        playbook: the hospital's.
        site: where it stands: a region or the witness.
        store: the store across sites.
        copy: the local copy of its log.
        own: a log of this site alone, for alerts about the store itself; None: nobody is told of those.
        means: its eyes and hands; None: those that the playbook names.
    """

    def __init__(
        self,
        playbook: Playbook,
        site: str,
        store: Store,
        copy: SqliteStore,
        own: EventLog | None = None,
        means: Means | None = None,
    ) -> None:
        means = means or Means(playbook, store)
        self.playbook = playbook
        self.site = site
        self.life = means.life()
        self.name = f"controller {site}/{self.life}"
        self.standing = Standing()
        self._store = store
        self._copy = copy
        self._systems = means.systems()
        self._runbook = means.runbook
        self.observer = Observer(self._systems, site, self._changed, self._service_changed)
        self.view = means.view(self._system_changed)
        self.endpoints = endpoints.EndpointsWatch(
            playbook.watch,
            lambda: HttpProbe(playbook.traffic.resolvers, playbook.traffic.ca_file),
            lambda: self.observer.sees,
            lambda changes: self._tell(endpoints.SEEN, site, {"changes": changes}),
        )
        self._chronicle = Chronicle()
        self.alarms = means.alarms(self, own)
        self._sitting: Sitting | None = None
        self._lead = Lead(store, self.name, patience(playbook))
        self._leader: Leader | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._sighting: Sighting | None = None
        self._heard: dict[str, Heard] = {}
        self._number = 0
        self._strange = ""
        self._telling: set[asyncio.Task[None]] = set()
        interval = playbook.thresholds.probing.interval.total_seconds()
        self._interval = min(interval, patience(playbook) / _ROUNDS)

    @property
    def waits(self) -> str:
        """Why nothing is decided, when this controller leads."""
        return self._leader.why if self._leader is not None else ""

    @property
    def held_back(self) -> Stay | None:
        """What keeps a failover from being carried out although something speaks for it, when this controller leads."""
        return self._leader.held_back if self._leader is not None else None

    def facts(self) -> Facts | None:
        """What alerts are judged by, when this controller leads; None else."""
        if self._leader is None or self._sitting is None or self._sitting.head.term != self._leader.term:
            return None
        return Facts(
            self.playbook,
            self._sitting.authority,
            self._heard,
            self.view.known,
            self.observer,
            self._chronicle,
            self._leader,
            boottime(),
        )

    @property
    def ready(self) -> bool:
        """Whether it sees, and the store answers it."""
        at = self.standing.answered_at
        return self.observer.looked and at is not None and boottime() - at <= fresh(self.playbook)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set.

        Raises:
            LeadLostError: another one leads now.
            RefusedError: another controller speaks for this site, or the local copy is of another log.
        """
        log("controller.started", site=self.site, life=self.life)
        self._chronicle.take(await self._copy.read(), boottime(), datetime.now(UTC))
        self.alarms.take(await self._copy.read())
        self.standing.copied = (await self._copy.head()).seq
        loops = (
            self.observer.run(),
            self.view.run(),
            self.endpoints.run(),
            self.alarms.run(),
            self._meet_for_ever(),
        )
        work = [asyncio.create_task(loop) for loop in loops]
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait({stopping, *work}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
        finally:
            for task in (stopping, *work, *self._telling):
                task.cancel()
            await asyncio.gather(stopping, *work, *self._telling, return_exceptions=True)
            await self._step_down()
            await self._systems.close()
        log("controller.stopped", site=self.site)

    async def _meet_for_ever(self) -> None:
        while True:
            began = boottime()
            try:
                async with asyncio.timeout(fresh(self.playbook)):
                    sitting = await self._meet()
            except (StoreError, TimeoutError) as error:
                self.standing.store_full = isinstance(error, StoreFullError)
                if self._strange != str(error):
                    self._strange = str(error)
                    log("store.silent", level="warning", found=self._strange or "no answer in time")
                sitting = None
            if sitting is not None:
                self._strange = ""
                await self._settle(sitting)
                await self._led(sitting)
            await asyncio.sleep(max(0.02, self._interval - (boottime() - began)))

    async def _meet(self) -> Sitting:
        """One round: our word, everybody's, and what was appended since the last one."""
        self._number += 1
        sitting = await self._store.meet(self.site, self.observer.word(self.life, self._number))
        now = boottime()
        self._hear(sitting, now)
        self.view.active = region_of(self.playbook, sitting.authority) or self.view.active
        self.observer.services.look_at(self.view.active)
        if sitting.head.seq > self.standing.copied:
            events = await self._store.read(self.standing.copied)
            await self._copy.copy(events, sitting.leadership, sitting.authority)
            self._chronicle.take(events, now)
            self.alarms.take(events)
            self.standing.copied = events[-1].seq if events else self.standing.copied
        self.standing.answered_at, self.standing.store_full = boottime(), False
        self._sitting = sitting
        return sitting

    def _hear(self, sitting: Sitting, now: float) -> None:
        for site, word in sitting.words.items():
            if site not in self.playbook.sites():
                continue
            before = self._heard.get(site)
            new = before is None or _newer(word, before.word)
            # What an earlier life of ours said stays as it is; who changes it is alive.
            if site == self.site and word.get("life") != self.life and before is not None and new:
                self._refuse_double(str(word.get("life")))
            if new:
                self._heard[site] = Heard(word, now)
            self.standing.words[site] = now - self._heard[site].at

    def _refuse_double(self, life: str) -> None:
        if life < self.life:  # one of both must go, and both must agree which
            raise RefusedError(
                f"speaking for {self.site}",
                f"another controller (life {life}) speaks for it too",
                "Run one controller at each site; stop one of them, or give it its own --site",
            )

    async def _settle(self, sitting: Sitting) -> None:
        """Who leads: us as before, somebody else, or nobody, and then we try."""
        now = boottime()
        self._sighting = watched(self._sighting, sitting.leadership, now)
        if self._keeping is not None:
            if self._keeping.done():
                self._keeping.result()  # it ends by an error only: the lead is lost
            return
        # Who has just begun has not seen anybody beat yet, and looks for a whole patience: `vacant` counts it.
        if vacant(self._sighting, now, self._lead.patience) and self.observer.looked:
            with suppress(StoreError):
                if await self._lead.take(sitting.leadership):
                    self._keeping = asyncio.create_task(self._lead.keep())
                    self._leader = Leader(
                        self.playbook,
                        self._store,
                        self._systems,
                        self.observer,
                        self._chronicle,
                        self.name,
                        self._lead.term,
                        self._runbook,
                    )
                    self.standing.leads, self.standing.term = True, self._lead.term
                    log("leader.begins", term=self._lead.term)
        self.standing.term = max(self.standing.term, sitting.leadership.term)

    async def _led(self, sitting: Sitting) -> None:
        if self._leader is None or sitting.head.term != self._leader.term:
            return  # what was read before we led says nothing of our term
        try:
            await self._leader.lead(sitting, self._heard)
        except StoreError as error:
            raise LeadLostError("leading", str(error), "Another one goes on") from error

    async def _step_down(self) -> None:
        if self._leader is not None:
            await self._leader.stop()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._lead.resign()

    def _changed(self, region: str, before: Sight | None, now: Sight, evidence: Mapping[str, str]) -> None:
        log("region.seen", region=region, sight=now, before=before, **evidence)
        if before is not None or now is not Sight.REACHABLE:
            data = {"sight": str(now), "before": before and str(before), "evidence": dict(evidence)}
            self._tell(SEEN, region, data)

    def _service_changed(self, region: str, service: str, watch: Watch) -> None:
        assert watch.last is not None  # noqa: S101 - it has just looked
        lost, evidence = watch.since is not None, dict(watch.last.evidence)
        log(SERVICE_SEEN, region=region, service=service, lost=lost, **evidence)
        self._tell(SERVICE_SEEN, region, {"service": service, "lost": lost, "evidence": evidence})

    def _system_changed(self, region: str, system: str, before: Answer | None, seen: Seen) -> None:
        log(SYSTEM_SEEN, region=region, system=system, answer=seen.answer, before=before, found=seen.words)
        data = {
            "system": system,
            "answer": str(seen.answer),
            "before": before and str(before),
            "found": seen.words,
        }
        self._tell(SYSTEM_SEEN, region, data)

    def _tell(self, kind: str, region: str, data: dict[str, Any]) -> None:
        """A change of what is seen is a fact for the log (SAFETY rule 11); one that cannot be written is in our own."""
        task = asyncio.create_task(self._append(NewEvent(kind, region, self.name, data)))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _append(self, event: NewEvent) -> None:
        async def seen() -> list[NewEvent]:
            return [event]

        with suppress(HmsdrError, TimeoutError):
            async with asyncio.timeout(_TELL_SECONDS):
                await append_after(self._store, seen, doing="recording what is seen")


def _newer(word: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether it was said after `before`: by another life, or with a higher number; one that is said again is old."""
    number, known = word.get("number"), before.get("number")
    if word.get("life") == before.get("life") and isinstance(number, int) and isinstance(known, int):
        return number > known
    return (word.get("life"), number) != (before.get("life"), known)
