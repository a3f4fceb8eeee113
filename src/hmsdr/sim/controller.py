"""A site's controller, simulated at its edges: it looks, testifies, and leads when the store says so.

What is judged is the real code of `hmsdr.decide.outage`; what it does as the leader is `hmsdr.sim.leader`. One that loses
its term stops acting at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hmsdr.decide import outage
from hmsdr.decide.authority import Authority
from hmsdr.decide.leading import FailOver
from hmsdr.decide.outage import Look, Sight, Watch
from hmsdr.decide.testimony import Rules, Testimony, of_service
from hmsdr.sim.agent import Agent
from hmsdr.sim.leader import Leader, Seen, heard
from hmsdr.sim.services import SERVICE, Services
from hmsdr.sim.store import Contents, Store, Word, append, campaign
from hmsdr.sim.world import EAST, SILENCE, SITES, WEST, Call, Machine, Process, Script, Sleep, World

KINDS = frozenset({"public", "agent", "database"})
SERVICE_KINDS = frozenset({"public", "own"})
SERVICES_HOLD_DOWN = 8.0


@dataclass(frozen=True, slots=True)
class Figures:
    """The playbook's figures, durations in seconds."""

    interval: float = 1.0
    timeout: float = 0.6
    hold_down: float = 5.0
    lease: float = 4.0
    drift_margin: float = 0.2
    """Far more than real clocks need: so that a margin left out shows within seconds of lease."""
    cool_down: float = 15.0
    fresh: float = 3.0
    services_hold_down: float = SERVICES_HOLD_DOWN
    services_recovery: float = 2.0

    def rules(self) -> Rules:
        """How much evidence is enough."""
        return Rules(self.hold_down, 2, 2, self.fresh)

    def services_rules(self) -> Rules:
        """The same of services."""
        return Rules(self.services_hold_down, 2, 2, self.fresh)


class Controller(Process):
    """One site's controller.

    Args:
        world: where it lives.
        machine: its site's.
        store: the store across sites.
        agents: the regions' agents.
        services: the regions' services.
        figures: the playbook's.
        on_decision: told of each failover decided.
    """

    def __init__(
        self,
        world: World,
        machine: Machine,
        store: Store,
        agents: dict[str, Agent],
        services: Services,
        figures: Figures,
        on_decision: Callable[[str, FailOver], None],
    ) -> None:
        super().__init__(world, machine, f"controller@{machine.site}")
        self.store = store
        self.agents = agents
        self.services = services
        self.figures = figures
        self.on_decision = on_decision
        self.term = 0
        self.watches: dict[str, Watch] = {}
        self.kinds: dict[str, frozenset[str]] = {}
        self.told: dict[str, tuple[float, dict[str, Any]]] = {}
        """What each region's agent told last, and when, on our clock."""
        self.heard: dict[str, tuple[int, float]] = {}
        """Number of each site's last word, and when we first saw it."""
        self.failed_over: tuple[int, float] | None = None
        """The last failover in the log, and when we first saw it."""
        self.leader = Leader(self)
        self.active: str | None = None
        """The region with the right to write, as the store said last."""
        self.serving: Watch | None = None
        """What is known of that region's services."""
        self.pilot: float | None = None
        """When the other region's services were last seen ready, on our clock; None when they were not."""
        self.verdicts: dict[str, str] = {}
        """What we said of each region in the log."""
        self._ready = False
        self._number = 0

    def begin(self) -> None:
        """A new life knows nothing."""
        figures = self.figures
        gap = timedelta(seconds=4 * (figures.interval + figures.timeout))
        self.watches = {r: Watch(timedelta(seconds=figures.hold_down), gap) for r in (EAST, WEST)}
        self.kinds, self.told, self.heard, self.verdicts = {}, {}, {}, {}
        self.active, self.serving, self.pilot, self._ready = None, None, None, False
        self.term, self.failed_over, self.leader = 0, None, Leader(self)
        self.say(f"started, life {self.life}")
        for region in (EAST, WEST):
            self.spawn(self._watch(region))
        self.spawn(self._watch_services())
        self.spawn(self._work())

    def clock(self) -> float:
        """Seconds on our clock that never jumps."""
        return self.machine.clock()

    def _watch(self, region: str) -> Script:
        """Look at one region at each interval: the agent's path tells its state, one more stands for the others."""
        agent, figures = self.agents[region], self.figures
        while True:
            began = self.clock()
            status = yield Call(region, heard(agent, agent.status), figures.timeout, agent)
            if status is not SILENCE:
                self.told[region] = (self.clock(), status)
                sight, kinds = Sight.REACHABLE, frozenset[str]()
            else:
                served = yield Call(region, lambda: agent.machine.up or SILENCE, figures.timeout)
                sight, kinds = (Sight.REACHABLE, frozenset[str]()) if served else (Sight.UNREACHABLE, KINDS)
            if sight is Sight.UNREACHABLE:
                others = [site for site in SITES if site not in (region, self.machine.site)]
                seen = False
                for other in others:
                    up = self.agents[other].machine if other in self.agents else None
                    answer = yield Call(other, _is_up(up), figures.timeout)
                    seen = seen or answer is not SILENCE
                if not seen:
                    sight = Sight.BLIND
            self.kinds[region] = kinds
            self.watches[region] = outage.look(self.watches[region], Look(began, sight, {}))
            yield Sleep(max(0.05, figures.interval - (self.clock() - began)))

    def _watch_services(self) -> Script:
        """Look at the active region's services at each interval; while they are lost, whether the other one could run them."""
        figures, services, site = self.figures, self.services, self.machine.site
        while True:
            began = self.clock()
            region, watch = self.active, self.serving
            if region is not None and watch is not None:
                served = yield Call(region, services.asked(region, site), figures.timeout)
                sight = Sight.REACHABLE if served is True else self._unserved(region)
                if region == self.active and self.serving is not None:
                    self.serving = watch = outage.look(self.serving, Look(began, sight, {}))
                ready, before = False, self._ready
                if watch.since is not None:
                    other = WEST if region == EAST else EAST
                    ready = (yield Call(other, services.asked(other, site), figures.timeout)) is True
                # Twice in a row: where both regions' services come back at once, ours are seen to be well first.
                self.pilot, self._ready = self.clock() if ready and before else None, ready
            yield Sleep(max(0.05, figures.interval - (self.clock() - began)))

    def _unserved(self, region: str) -> Sight:
        """Who is blind for the region is blind for its services."""
        last = self.watches[region].last
        return Sight.BLIND if last is not None and last.sight is Sight.BLIND else Sight.UNREACHABLE

    def _look_at(self, authority: Authority) -> None:
        """Another active region: what was seen of the one before says nothing of it."""
        holder = authority.holder
        region = None if holder is None else holder.instance.removeprefix("db-")
        if region is not None and region != self.active:
            figures = self.figures
            gap = timedelta(seconds=4 * (figures.interval + figures.timeout))
            recovery = timedelta(seconds=figures.services_recovery)
            hold_down = timedelta(seconds=figures.services_hold_down)
            self.active, self.serving = region, Watch(hold_down, gap, recovery=recovery)

    def _words(self, number: int) -> Word:
        now = self.clock()
        words = []
        for region, watch in self.watches.items():
            if watch.last is None:
                continue
            since = watch.last.at if watch.since is None else watch.since
            words.append(
                Testimony(
                    self.machine.site,
                    region,
                    watch.last.sight,
                    watch.last.at - since,
                    self.kinds.get(region, frozenset()),
                    now,
                )
            )
        serving = self.serving
        if serving is not None and serving.last is not None and self.active is not None:
            since = serving.last.at if serving.since is None else serving.since
            lost = serving.last.sight is Sight.UNREACHABLE
            words.append(
                Testimony(
                    self.machine.site,
                    of_service(SERVICE, self.active),
                    serving.last.sight,
                    serving.last.at - since,
                    SERVICE_KINDS if lost else frozenset(),
                    now,
                )
            )
        return Word(tuple(words), number)

    def _work(self) -> Script:
        """Testify, and lead if we may, until this life ends. A round is one interval."""
        store, site = self.store, self.machine.site
        while True:
            began = self.clock()
            self._number += 1
            word = self._words(self._number + 1_000_000 * self.life)
            seen = yield store.ask(site, self._round(word), self.figures.timeout)
            if seen is not SILENCE:
                term, contents = seen
                if term != self.term:
                    self.leader.forget()
                    self.term = term
                    if term:
                        self.say(f"leads, term {term}")
                self._note(contents)
                yield from self._testify(contents)
                if term:
                    yield from self.leader.lead(contents)
            yield Sleep(max(0.05, self.figures.interval - (self.clock() - began)))

    def _testify(self, seen: Seen) -> Script:
        """Changes of a verdict go into the log, from whoever sees them, under the term of whoever leads."""
        verdicts = {region: str(watch.last.sight) for region, watch in self.watches.items() if watch.last}
        if verdicts == self.verdicts:
            return
        stored = yield self.store.ask(
            self.machine.site, append(self.name, "verdict", seen.term, seen.head), self.figures.timeout
        )
        if stored is True:
            self.verdicts = verdicts

    def _round(self, word: Word) -> Callable[[Contents], Any]:
        """One request a round: our word, the term, and what the others said."""
        campaigning = campaign(self.name, lambda: self.world.now)

        def act(contents: Contents) -> Any:
            contents.words[self.machine.site] = word
            term = campaigning(contents)
            events = [entry for entry in contents.log if entry.kind.startswith("failover")]
            return term, Seen(
                contents.term,
                contents.authority,
                dict(contents.words),
                len(contents.log),
                events[-1].seq if events else 0,
                contents.switchover,
                contents.disaster,
                contents.traffic,
            )

        return act

    def _note(self, seen: Seen) -> None:
        now = self.clock()
        self._look_at(seen.authority)
        for site, word in seen.words.items():
            if self.heard.get(site, (None, 0.0))[0] != word.number:
                self.heard[site] = (word.number, now)
        if seen.last_failover and (self.failed_over is None or self.failed_over[0] != seen.last_failover):
            self.failed_over = (seen.last_failover, now)

    def fresh(self, region: str) -> dict[str, Any] | None:
        """What the region's agent told within the time that its word counts."""
        at, status = self.told.get(region, (0.0, None))
        return status if status is not None and self.clock() - at <= self.figures.fresh else None


def _is_up(machine: Machine | None) -> Callable[[], Any]:
    return lambda: True if machine is None or machine.up else SILENCE
