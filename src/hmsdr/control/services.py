"""Watching the active region's services from one site: on the public path and on the region's own (FA-1, FA-3).

It looks and tells. Whether they are lost is judged in decide/, by several sites together; here stands also whether the other
region could run them, because a failover that mends nothing is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from hmsdr.control.proctable import boottime
from hmsdr.control.punctuality import Punctuality
from hmsdr.control.watch import fresh, references
from hmsdr.decide.outage import Look, Sight, Watch, look
from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.http import HttpAnswer, HttpOutcome
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.systems import Systems

_SERVED = range(200, 400)
PUBLIC, OWN = "public", "ingress"
SERVICE_KINDS = frozenset({PUBLIC, OWN})
"""The kinds of path on which a service is looked at: as users go, and the region's own way in."""


@dataclass(frozen=True, slots=True)
class Pilot:
    """What the other region could run, asked while a clock of ours runs: ``at`` on the boot-time clock."""

    at: float
    region: str
    now: frozenset[str] = frozenset()
    """Services whose path there answers and whose pilot light is ready."""
    ready: frozenset[str] = frozenset()
    """Those that were so in the look before as well: what both regions lean on may just have come back in both."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Of the others, why not."""


class ServicesWatch:
    """Looks at the services of whichever region is active.

    Args:
        systems: the hospital.
        site: where we are.
        on_change: told when a service's clock starts or is set back: region, service, what is known.
    """

    def __init__(self, systems: Systems, site: str, on_change: Callable[[str, str, Watch], None]) -> None:
        self._systems = systems
        self._site = site
        self._on_change = on_change
        probing = systems.playbook.thresholds.probing
        self._interval = probing.interval.total_seconds()
        self._timeout = probing.timeout.total_seconds()
        self.region: str | None = None
        """The region whose services count; None until the store said which is active."""
        self.watches: dict[str, Watch] = {}
        """By service; of `region` only. Those that are not critical are told of, and drive nothing."""
        self.pilot: Pilot | None = None
        self.held_up = 0
        """Looks in vain that do not count, because this process could not run while it looked."""
        self._ready: frozenset[str] = frozenset()
        self._unheard: set[str] = set()
        """Addresses that gave no answer last."""

    def look_at(self, region: str | None) -> None:
        """From now on `region` is the active one: what was seen of another says nothing of it."""
        if region is None or region == self.region:
            return
        triggers = self._systems.playbook.thresholds.triggers
        self.region, self.pilot, self._ready = region, None, frozenset()
        self.watches = {
            name: Watch(
                triggers.critical_services_unavailable,
                longest_gap=timedelta(seconds=fresh(self._systems.playbook)),
                recovery=triggers.critical_services_recovery,
            )
            for name in self._systems.playbook.services
        }

    async def run(self) -> None:
        """Look at each interval, for ever."""
        while True:
            began = boottime()
            if self.region is not None:
                await self.step(self.region)
            await asyncio.sleep(max(0.0, self._interval - (boottime() - began)))

    async def step(self, region: str) -> None:
        """One look at each service, on every path at once."""
        at = boottime()
        with Punctuality(self._timeout) as punctuality:
            looks = await self._looks(region, at)
        if region != self.region:
            return  # the other one has become active meanwhile
        if punctuality.held_up and any(seen.sight is not Sight.REACHABLE for seen in looks.values()):
            # Their silence may be ours. What answered counts; the clocks of the others have a gap.
            self.held_up += 1
            looks = {name: seen for name, seen in looks.items() if seen.sight is Sight.REACHABLE}
        for service, seen in looks.items():
            before = self.watches[service]
            after = self.watches[service] = look(before, seen)
            if (before.since is None) != (after.since is None):
                self._on_change(region, service, after)
        running = [name for name in critical(self._systems.playbook) if self.watches[name].since is not None]
        self.pilot = await self._ask_pilot(region, running, self._ready) if running else None
        self._ready = self.pilot.now if self.pilot is not None else frozenset()

    async def _looks(self, region: str, at: float) -> dict[str, Look]:
        public = self._systems.playbook.traffic.public_url
        own = self._systems.playbook.regions[region].ingress.url
        services = tuple(self._systems.playbook.services)
        answers = await asyncio.gather(*(self._get(url, name) for name in services for url in (public, own)))
        pairs = {name: answers[2 * number : 2 * number + 2] for number, name in enumerate(services)}
        # Whoever hears anything at all from here can see; only who hears nothing checks its own eyes.
        heard = any(answer.outcome is HttpOutcome.ANSWERED for answer in answers)
        sees = heard or await self._reference_seen(region)
        return {name: _look(at, self._timeout, *pair, sees=sees) for name, pair in pairs.items()}

    async def _get(self, base: str, service: str) -> HttpAnswer:
        url = base + self._systems.playbook.services[service].health_path
        # On a connection that was heard before, silence is only silence: after one, a new connection tells more.
        answer = await self._systems.http().get(url, deadline=self._timeout, reuse=url not in self._unheard)
        if answer.outcome is HttpOutcome.ANSWERED:
            self._unheard.discard(url)
        else:
            self._unheard.add(url)
        return answer

    async def _reference_seen(self, region: str) -> bool:
        http = self._systems.http()
        urls = references(self._systems.playbook, region, self._site)
        answers = await asyncio.gather(*(http.get(url, deadline=self._timeout) for url in urls))
        return any(answer.outcome is HttpOutcome.ANSWERED for answer in answers)

    async def _ask_pilot(self, region: str, services: Sequence[str], before: frozenset[str]) -> Pilot:
        """Whether the other region could run `services`.

        In a standby region they have no primary yet, so what they answer there does not matter; that somebody answers does.
        """
        at, playbook = boottime(), self._systems.playbook
        other = playbook.other_region(region)
        url = playbook.regions[other].ingress.url
        pods, answers = await asyncio.gather(
            self._ready_pods(other), asyncio.gather(*(self._get(url, name) for name in services))
        )
        words = {}
        for name, answer in zip(services, answers, strict=True):
            service = playbook.services[name]
            if answer.outcome is not HttpOutcome.ANSWERED:
                words[name] = f"its path there: {told(answer, self._timeout)}"
            elif isinstance(pods, DriverError):
                words[name] = pods.found
            elif service.replicas.standby and not pods.get(service.deployment):
                words[name] = "no pod is ready there"
        now = frozenset(services) - words.keys()
        return Pilot(at, other, now, now & before, words)

    async def _ready_pods(self, region: str) -> dict[str, int] | DriverError:
        try:
            found = await self._systems.kubernetes(region).deployments(deadline=self._timeout)
        except DriverError as error:
            return error
        return {each.name: each.ready for each in found}


def critical(playbook: Playbook) -> tuple[str, ...]:
    """The critical services' names."""
    return tuple(name for name, service in playbook.services.items() if service.critical)


def told(answer: HttpAnswer, timeout: float) -> str:
    """What became of a request, in words: slow and wrong answers are not told as none."""
    if answer.status is None:
        return str(answer.outcome)
    slow = f" after {answer.seconds:.1f} s" if answer.seconds > timeout / 2 else ""
    return f"HTTP {answer.status}{slow}"


def failing(watch: Watch) -> frozenset[str]:
    """The kinds of path that failed in the last look, when it was in vain."""
    lost = watch.last is not None and watch.last.sight is Sight.UNREACHABLE
    return SERVICE_KINDS if lost else frozenset()


def _look(at: float, timeout: float, public: HttpAnswer, own: HttpAnswer, *, sees: bool) -> Look:
    """A service is served when either path serves it; else it is lost, unless we cannot see."""
    evidence = {PUBLIC: told(public, timeout), OWN: told(own, timeout)}
    if public.status in _SERVED or own.status in _SERVED:
        return Look(at, Sight.REACHABLE, evidence)
    return Look(at, Sight.UNREACHABLE if sees else Sight.BLIND, evidence)
