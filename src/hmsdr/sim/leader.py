"""The leading controller's hands, simulated: it decides by the real code and carries it out move by move.

A decision is an event under the leader's term before anything is done about it. Whatever a leader left half done, the
next one finishes from the record alone, with a wait of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hmsdr.decide import leading
from hmsdr.decide import takeover as taking
from hmsdr.decide.authority import Authority, AuthorityRefused, Holder, Phase, Receipt, grant
from hmsdr.decide.leading import Case, Cause, FailOver, Target
from hmsdr.decide.services import together
from hmsdr.decide.takeover import Side, Takeover
from hmsdr.decide.testimony import of_service, weigh
from hmsdr.sim.agent import Agent, read_authority
from hmsdr.sim.services import SERVICE
from hmsdr.sim.store import Word, append, move_traffic, swap
from hmsdr.sim.world import EAST, SILENCE, WEST, Call, Script, Sleep

if TYPE_CHECKING:
    from hmsdr.sim.controller import Controller


@dataclass(frozen=True, slots=True)
class Seen:
    """What one round showed."""

    term: int
    authority: Authority
    words: dict[str, Word]
    head: int
    last_failover: int
    switchover: int
    disaster: int
    traffic: tuple[str, int]


class Leader:
    """What a controller does while it leads; of one life of it.

    Args:
        controller: whose.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.store, self.agents, self.figures = controller.store, controller.agents, controller.figures
        self.site = controller.machine.site
        self.takeover: Takeover | None = None
        self.because = ""
        """Why nothing was decided, as said last."""

    def forget(self) -> None:
        """Another term: whatever was about to be done belongs to the past."""
        self.takeover, self.because = None, ""

    def lead(self, seen: Seen) -> Script:
        record = seen.authority
        if record.phase is Phase.HELD:
            self.takeover = None
            holder = record.holder
            assert holder is not None  # noqa: S101 - held
            region = region_of(holder.instance)
            yield from self._settle(seen, record, region)
            if seen.switchover == record.epoch:
                yield from self._switch_over(record, region)
                return
            if seen.disaster == record.epoch:
                self.takeover = Takeover(record.epoch, f"db-{elsewhere(region)}", self.figures.drift_margin)
                self.controller.say(f"{region} was declared lost")
                yield from self._free()
                return
            decision = self._decide(seen, record, region)
            if isinstance(decision, FailOver):
                yield from self._begin(decision, seen)
        else:
            yield from self._go_on(record)

    def _decide(self, seen: Seen, record: Authority, region: str) -> leading.Decision:
        now, figures = self.controller.clock(), self.figures
        words = [
            replace(each, heard=self.controller.heard[site][1])
            for site, word in seen.words.items()
            for each in word.testimonies
        ]
        lost = weigh(words, region, figures.rules(), now)
        services = weigh(words, of_service(SERVICE, region), figures.services_rules(), now)
        cases = [
            Case(Cause.REGION, lost),
            Case(Cause.SERVICES, together({SERVICE: services}, 1).finding),
        ]
        other = elsewhere(region)
        target = None
        if other in self.controller.told:
            at, status = self.controller.told[other]
            holder: Holder = status["holder"]
            target = Target(
                holder.instance,
                holder.incarnation,
                now - at,
                bool(status["following"]),
                serving=self._could_serve(now),
            )
        decision = leading.decide(
            record,
            cases,
            target,
            since_last=None if self.controller.failed_over is None else now - self.controller.failed_over[1],
            cool_down=figures.cool_down,
            fresh=figures.fresh,
        )
        because = str(decision.why) if isinstance(decision, leading.Stay) else ""
        if because != self.because:
            self.because = because
            self.controller.say(f"{region}: {because}" if because else f"{region}: fail over")
        return decision

    def _could_serve(self, now: float) -> bool:
        """Whether the other region's services were seen ready just now: otherwise leaving would mend nothing."""
        seen = self.controller.pilot
        return seen is not None and now - seen <= self.figures.fresh

    def _switch_over(self, record: Authority, region: str) -> Script:
        """Somebody wants it planned: only while both sides are well, and so that nothing is lost."""
        status = self.controller.fresh(elsewhere(region))
        if status is not None and status["following"] and self.controller.fresh(region) is not None:
            self.takeover = Takeover(
                record.epoch, status["holder"].instance, self.figures.drift_margin, clean=True
            )
            self.controller.say("a planned switchover begins")
            yield from self._free()

    def _begin(self, decision: FailOver, seen: Seen) -> Script:
        """The decision is an event under our term before anything is done about it."""
        stored = yield self.store.ask(
            self.site,
            append(
                self.controller.name, f"failover.decided {decision.epoch}", self.controller.term, seen.head
            ),
            self.figures.timeout,
        )
        if stored is not True:
            return
        self.controller.on_decision(self.controller.name, decision)
        self.takeover = Takeover(decision.epoch, decision.target, self.figures.drift_margin)
        yield from self._free()

    def _go_on(self, record: Authority) -> Script:
        """Somebody began to take the right away: go on from the record, with a wait of our own."""
        if record.phase is Phase.REVOKING and record.holder is not None:
            if self.takeover is None or self.takeover.epoch != record.epoch:
                target = f"db-{elsewhere(region_of(record.holder.instance))}"
                self.takeover = Takeover(record.epoch, target, self.figures.drift_margin)
            yield from self._free()
        else:
            yield from self._grant(record)

    def _free(self) -> Script:
        """Move by move until the right is free or nothing more can be done now; the next round goes on."""
        for _ in range(8):
            record = yield self.store.ask(self.site, read_authority, self.figures.timeout)
            if record is SILENCE or self.takeover is None:
                return
            try:
                step = taking.move(self.takeover, record, self.controller.clock())
            except AuthorityRefused:
                self.takeover = None
                return
            if isinstance(step, taking.Freed):
                yield from self._grant(record)
                return
            going_on = yield from self._make(step, record)
            if not going_on:
                return

    def _make(self, step: taking.Revoke | taking.Await | taking.Free, record: Authority) -> Script:
        """Carry out one move; gives whether there is reason to look at once again."""
        takeover = self.takeover
        assert takeover is not None  # noqa: S101 - the caller has one
        if isinstance(step, taking.Await):
            receipt = yield from self._fence(takeover)
            takeover = self.takeover = replace(takeover, receipt=receipt)
            ends = taking.left(takeover, self.controller.clock())
            if receipt is None and (takeover.clean or ends > self.figures.interval):
                return False
            if receipt is None:
                yield Sleep(ends)
            return True
        if step.new != record:
            done = yield self.store.ask(self.site, swap(record, step.new), self.figures.timeout)
            if done is not True:
                return False
        if isinstance(step, taking.Revoke):
            self.takeover = taking.answered(takeover, step.new, self.controller.clock())
            self.controller.say(f"revoked epoch {takeover.epoch}")
        else:
            self.controller.say(f"epoch {takeover.epoch} is free: {type(step.proof).__name__}")
        return True

    def _fence(self, takeover: Takeover) -> Script:
        revoked = takeover.revoked
        if revoked is None or revoked.holder is None:
            return None
        agent = self.agents[region_of(revoked.holder.instance)]
        agent_answer: list[Receipt | None] = []
        yield Call(
            agent.machine.site,
            heard(
                agent,
                lambda: _started(agent, agent.fence(takeover.epoch, clean=takeover.clean), agent_answer),
            ),
            self.figures.timeout,
            agent,
        )
        receipt = yield Call(
            agent.machine.site,
            heard(agent, lambda: agent_answer[0] if agent_answer and agent_answer[0] else SILENCE),
            self.figures.timeout,
            agent,
        )
        return None if receipt is SILENCE else receipt

    def _grant(self, record: Authority) -> Script:
        """The point of no return: to whom the right was freed for, or to the side that can take it."""
        side = taking.recipient(
            record, self._sides(), self.takeover.to if self.takeover is not None else None
        )
        if side is None:
            return
        holder = Holder(side.instance, side.incarnation)
        try:
            new = grant(record, holder, lease_seconds=self.figures.lease)
        except AuthorityRefused as refusal:
            self.controller.say(f"no grant: {refusal}")
            return
        done = yield self.store.ask(self.site, swap(record, new), self.figures.timeout)
        if done is True:
            self.takeover = None
            self.controller.say(f"grants epoch {new.epoch} to {holder.instance}")
            yield from self._promote(new)

    def _sides(self) -> list[Side]:
        found = []
        for region in (EAST, WEST):
            status = self.controller.fresh(region)
            if status is not None:
                holder: Holder = status["holder"]
                found.append(Side(holder.instance, holder.incarnation, status["data_epoch"], status["lsn"]))
        return found

    def _promote(self, record: Authority) -> Script:
        assert record.holder is not None  # noqa: S101 - held
        agent = self.agents[region_of(record.holder.instance)]
        yield Call(
            agent.machine.site,
            heard(agent, lambda: _started(agent, agent.promote(record.epoch, record.handover_lsn or 0), [])),
            self.figures.timeout,
            agent,
        )

    def _settle(self, seen: Seen, record: Authority, region: str) -> Script:
        """Whoever holds the right is promoted, and the public record leads there."""
        status = self.controller.fresh(region)
        if status is None:
            return
        there = elsewhere(region)
        if status["promoted_epoch"] != record.epoch:
            yield from self._promote(record)
        elif seen.traffic != (region, record.epoch):
            moved = yield self.store.ask(
                self.site, move_traffic(seen.traffic, region, record.epoch), self.figures.timeout
            )
            if moved is True:
                self.controller.say(f"the public record leads to {region}")
        elif (other := self.controller.fresh(there)) is not None and not other["following"]:
            lost = self.agents[there]
            yield Call(there, heard(lost, lambda: lost.follow(record.epoch)), self.figures.timeout, lost)


def _started(agent: Agent, script: Script, answer: list[Any]) -> bool:
    """Let the agent carry out an order; what becomes of it is put into `answer`."""

    def carried_out() -> Script:
        answer.append((yield from script))

    agent.spawn(carried_out())
    return True


def heard(agent: Agent, handle: Callable[[], Any]) -> Callable[[], Any]:
    """What the agent answers, unless its interface is out of order."""
    return lambda: SILENCE if agent.mute else handle()


def region_of(instance: str) -> str:
    """Region of a database instance."""
    return instance.removeprefix("db-")


def elsewhere(region: str) -> str:
    """The other region."""
    return WEST if region == EAST else EAST
