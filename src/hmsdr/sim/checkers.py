"""What must never happen, watched from outside: they see the world as it is, not what a process believes of it.

Each check names the rule of SAFETY.md or the requirement that it stands for. A checker decides nothing in the world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hmsdr.control.chronicle import DECIDED
from hmsdr.decide.authority import Authority, Phase
from hmsdr.decide.leading import Cause, FailOver
from hmsdr.log.events import Event
from hmsdr.sim.database import Database, Row
from hmsdr.sim.world import EAST, SITES, WEST, World

if TYPE_CHECKING:
    from hmsdr.sim.hospital import Hospital

_TRANSIT = 1.5
"""Seconds that a sight may be on its way to a decision: what was well so recently, nobody can know of."""
_EVER = float("inf")
_SEEN = 3.4
"""Seconds of being well within which at least one look falls: one interval, one timeout and the way."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must never happen, and did."""

    at: float
    name: str
    text: str


class Checkers:
    """Every invariant over one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[Violation] = []
        self.hospital: Hospital | None = None
        self.decisions: list[tuple[float, FailOver]] = []
        self.acknowledged: dict[str, list[tuple[float, Row]]] = {EAST: [], WEST: []}
        self.promotions: dict[int, int] = {}
        self.newest = 0
        """Newest epoch under which anything was acknowledged."""
        self.starts = {EAST: 0, WEST: 0}
        """How often each database became able to write."""
        self._well: dict[str, float | None] = {EAST: 0.0, WEST: 0.0}
        self._was_well: dict[str, list[tuple[float, float]]] = {EAST: [], WEST: []}
        self._working: dict[str, list[tuple[float, float]]] = {EAST: [(0.0, _EVER)], WEST: [(0.0, _EVER)]}
        """When each region's services did their work and two sites could see it; the last span is open while they do."""
        self._failed: dict[str, float | None] = {EAST: None, WEST: None}
        """Since when each region's services do not work; None while they do."""
        self._traffic = 0
        world.changed.append(self.look)

    def found(self, name: str, text: str) -> None:
        """Note a violation, once by name."""
        if all(each.name != name for each in self.violations):
            self.violations.append(Violation(self.world.now, name, text))
            self.world.say("CHECKER", f"{name}: {text}")

    def able(self, database: Database) -> None:
        """FA-4: never two databases able to write."""
        self.starts[database.machine.site] += 1
        self._alone(database)

    def _alone(self, database: Database) -> None:
        other = database.other
        if other is not None and other.able:
            self.found(
                "two-writers",
                f"{database.instance} can write under epoch {database.epoch}, and {other.instance} still can "
                f"under epoch {other.epoch}",
            )

    def committed(self, database: Database, row: Row) -> None:
        """No commit is acknowledged under an epoch after the first one under the next."""
        epoch = row[0]
        if epoch < self.newest:
            self.found(
                "late-commit",
                f"{database.instance} acknowledged a commit under epoch {epoch} after one under {self.newest}",
            )
        self.newest = max(self.newest, epoch)
        self.acknowledged[database.machine.site].append((self.world.now, row))
        self._alone(database)

    def promise(self, known: Authority | None, epoch: int) -> None:
        """Rule 7: who has seen that the right is being taken away promises nothing."""
        if known is not None and (
            known.epoch > epoch or (known.epoch == epoch and known.phase is not Phase.HELD)
        ):
            self.found("promised-although-revoked", f"epoch {epoch}, known to be {known.phase}")

    def promoted(self, database: Database, epoch: int) -> None:
        """Rule 5: an epoch is used once; and a hand-over loses nothing (rule 9)."""
        self.promotions[epoch] = self.promotions.get(epoch, 0) + 1
        if self.promotions[epoch] > 1:
            self.found("epoch-used-twice", f"{database.instance} was promoted again under epoch {epoch}")
        if database.damaged:
            self.found("damaged-promoted", f"{database.instance}, whose data is damaged")
        if database.cached is not None and database.cached not in database.rows:
            self.found(
                "cache-ahead", f"Redis of {database.instance} knows {database.cached}, the database does not"
            )
        record = self.hospital.store.contents.authority if self.hospital is not None else None
        if record is None:
            return
        if record.epoch < epoch:
            self.found("promotion-without-grant", f"epoch {epoch} was never granted")
        if record.epoch == epoch and record.handover_lsn is not None and database.other is not None:
            given = max(record.handover_lsn, len(database.other.rows))
            if len(database.rows) < given:
                self.found(
                    "hand-over-lost",
                    f"promoted at {len(database.rows)}, although there were commits up to {given}",
                )

    def appended(self, event: Event) -> None:
        """An event is in the log: a decision is judged at that very moment."""
        if event.kind == DECIDED and event.data["kind"] in set(Cause):
            data, source = event.data, f"db-{event.subject}"
            decision = FailOver(data["epoch"], source, f"db-{data['to']}", Cause(data["kind"]))
            self.decided(event.actor, decision)

    def decided(self, who: str, decision: FailOver) -> None:
        """FA-3: nobody fails over from a region that could be seen to be well within the hold-down."""
        self.decisions.append((self.world.now, decision))
        hospital = self.hospital
        assert hospital is not None  # noqa: S101 - set before anything runs
        region = decision.source.removeprefix("db-")
        if decision.cause is Cause.SERVICES:
            self._decided_for_services(who, decision)
            return
        if decision.cause is Cause.CORRUPTION:
            if not hospital.databases[region].damaged:
                self.found("wrong-failover", f"{who} fails over from {region}, whose data is well")
            return
        slow = 1 + hospital.figures.drift_margin
        first, last = self.world.now - hospital.figures.hold_down / slow, self.world.now - _TRANSIT
        well = self._well[region]
        spans = [*self._was_well[region][-20:], *([(well, self.world.now)] if well is not None else [])]
        for begun, ended in spans:
            if min(ended, last) - max(begun, first) > _SEEN:
                self.found(
                    "wrong-failover",
                    f"{who} fails over from {region}, which was well from {begun:.1f} to {ended:.1f}",
                )

    def _decided_for_services(self, who: str, decision: FailOver) -> None:
        """FA-1: not while they could be seen to work for so long that every clock was set back, and only to where they work."""
        hospital = self.hospital
        assert hospital is not None  # noqa: S101 - set before anything runs
        figures, now = hospital.figures, self.world.now
        slow = 1 + figures.drift_margin
        first, last = now - figures.services_hold_down / slow, now - _TRANSIT
        for begun, ended in self._working[decision.source.removeprefix("db-")][-40:]:
            if min(ended, last) - max(begun, first) > figures.services_recovery * slow + _SEEN:
                self.found(
                    "wrong-failover",
                    f"{who} fails over for services that worked from {begun:.1f} to {min(ended, now):.1f}",
                )
        failed = self._failed[decision.target.removeprefix("db-")]
        if failed is not None and now - failed > figures.fresh * slow + _TRANSIT:
            self.found("useless-failover", f"{who} fails over to where services failed at {failed:.1f}")

    def _look_at_services(self, hospital: Hospital, region: str, *, whole: bool) -> None:
        """Note whether they do their work and can be seen to: who cannot reach the region cannot reach them."""
        failed = self._failed[region]
        self._failed[region] = None if hospital.services.work(region) else failed or self.world.now
        spans = self._working[region]
        hidden = sum(each == region for each, _ in hospital.services.hidden)
        works = whole and hospital.services.work(region) and hidden <= 1
        if works and spans[-1][1] != _EVER:
            spans.append((self.world.now, _EVER))
        elif not works and spans[-1][1] == _EVER:
            spans[-1] = (spans[-1][0], self.world.now)

    def look(self) -> None:
        """Wires or machines changed: note which region can be reached by both other sites."""
        if self.hospital is None:
            return
        cut = self.world.cut
        calm = not self.world.loss and self.world.delay <= 1
        for region in (EAST, WEST):
            whole = calm and self.hospital.machines[region].up
            for site in SITES:
                if site != region and ((site, region) in cut or (region, site) in cut):
                    whole = False
            self._look_at_services(self.hospital, region, whole=whole)
            since = self._well[region]
            if whole and since is None:
                self._well[region] = self.world.now
            elif not whole and since is not None:
                self._was_well[region].append((since, self.world.now))
                self._well[region] = None

    def settled(self) -> None:
        """Rules 11 and 12: events were appended by those who had folded all before, and traffic moves forward only."""
        assert self.hospital is not None  # noqa: S101 - set before anything runs
        epoch = self.hospital.dns.traffic[1]
        if epoch < self._traffic:
            self.found("old-traffic", f"the public record went back from epoch {self._traffic} to {epoch}")
        self._traffic = max(self._traffic, epoch)
        term = 0
        for entry in self.hospital.store.contents.log:
            event = entry.event
            if entry.basis != event.seq - 1:
                self.found(
                    "unfolded-append", f"event {event.seq} was decided when the log ended at {entry.basis}"
                )
            if event.term < term:
                self.found("old-term", f"event {event.seq} under term {event.term} after term {term}")
            term = max(term, event.term)
