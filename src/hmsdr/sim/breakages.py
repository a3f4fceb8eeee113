"""Proof that the checkers can see: each rule of SAFETY.md left out on purpose, and caught.

A breakage replaces one function of the real `hmsdr.decide`, or of a simulated edge, for as long as it is applied. It never
touches a checker. One that is not caught within its seeds is a failure of the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hmsdr.control import agent, guard, leader, lease, promote, relaying, weighing
from hmsdr.control.database import Database as RealDatabase
from hmsdr.control.lease import Lease, Renewal
from hmsdr.control.proctable import boottime
from hmsdr.decide import authority, promise, takeover, tenure, testimony
from hmsdr.decide.authority import Authority, Holder, LeaseWaited
from hmsdr.decide.outage import Sight
from hmsdr.decide.promise import Promise
from hmsdr.decide.takeover import Takeover
from hmsdr.decide.tenure import Delivery, Tenure
from hmsdr.drivers.agent_answers import AgentStatus
from hmsdr.drivers.errors import DriverError
from hmsdr.log.events import Head, NewEvent
from hmsdr.log.store import TermOverError
from hmsdr.playbook.model import Playbook
from hmsdr.runbook import observe
from hmsdr.runbook.action import StepContext
from hmsdr.runbook.actions import authority as actions
from hmsdr.runbook.actions.authority import GrantAuthority
from hmsdr.runbook.actions.database import PromotePostgres
from hmsdr.sim import run, store
from hmsdr.sim.database import Database
from hmsdr.sim.edges import Server
from hmsdr.sim.faults import Scenario
from hmsdr.sim.guard import Guard
from hmsdr.sim.settings import SERVICES_HOLD_DOWN, Figures
from hmsdr.sim.store import Contents
from hmsdr.sim.systems import Dns

Replaced = tuple[Any, str, Any]
"""Where, the name, and what stands there instead."""


@dataclass(frozen=True, slots=True)
class Breakage:
    """One rule left out."""

    name: str
    rule: str
    text: str
    replaced: tuple[Replaced, ...]
    scenario: Scenario | None = None
    """Where alone it shows often enough to be looked for."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The world without the rule, until the block ends."""
        with ExitStack() as stack:
            for where, name, instead in self.replaced:
                stack.callback(
                    setattr, where, name, vars(where)[name]
                )  # as it stands: a static method stays one
                setattr(where, name, instead)
            yield


_RENEWED = tenure.renewed
_RENEW = Lease.renew
_LATE = 10.0


def _deadline_from_answer(state: Tenure, record: Authority, asked: float) -> Tenure:
    del asked
    return _RENEWED(state, record, boottime())


async def _renews_however_late(self: Lease, deadline: float) -> Renewal:
    del deadline
    return await _RENEW(self, _LATE)


async def _unclear_is_renewal(self: Lease, deadline: float) -> Renewal:
    outcome = await _RENEW(self, deadline)
    if outcome is Renewal.UNCLEAR and self.deadline is not None and self.record is not None:
        self.tenure = replace(self.tenure, deadline=boottime() + self.record.lease_seconds / 2)
        return Renewal.HELD
    return outcome


def _no_margin(state: Tenure, record: Authority, asked: float) -> Tenure:
    return replace(state, record=record, epoch=record.epoch, deadline=asked + record.lease_seconds)


def _bare_lease(state: Takeover, now: float) -> float:
    if state.since is None or state.revoked is None:
        return 0.0
    return max(0.0, state.revoked.lease_seconds - (now - state.since))


def _postmaster_only(self: Server) -> None:
    self.database.kill(backends=False)


def _guard_kills_postmaster(self: Guard) -> tuple[int, int]:
    self.database.kill(backends=False)
    return 1, 0


def _receipt_before_dead(self: Server) -> None:
    world = self.database.world
    world.at(world.now + 1.5, self.database.kill)


def _no_wait(state: Takeover, now: float, **_: Any) -> LeaseWaited | authority.Receipt | None:
    return state.receipt or LeaseWaited(state.epoch, max(60.0, now), state.drift_margin)


_ANSWERED = takeover.answered


def _wall_clock(state: Takeover, revoked: Authority, now: float) -> Takeover:
    # The wall clock was set forward between the revocation and the look at it.
    found = _ANSWERED(state, revoked, now)
    skew = (revoked.renewal * 7919 + revoked.epoch) % 5
    return found if found.since is None else replace(found, since=found.since - skew)


def _put(expected: Authority, new: Authority) -> Callable[[Contents], bool]:
    del expected

    def act(contents: Contents) -> bool:
        contents.authority = new
        return True

    return act


_MAKE_STANDBY = Server.make_standby


def _not_after_a_promotion(self: Server, *, durable: bool = True) -> None:
    if not self.database.running:
        _MAKE_STANDBY(self, durable=durable)


def _always_new(epoch: int, **_: Any) -> Delivery:
    del epoch
    return Delivery.NEW


async def _authorised_by_nobody(database: RealDatabase, doing: str, epoch: int) -> Authority:
    del doing
    record = database.lease.record
    assert record is not None  # noqa: S101 - an agent that was given an order has looked
    return replace(record, epoch=epoch)


def _arms_without_a_lease(self: RealDatabase) -> None:
    self.writable = True
    self.guarding.publish(self.lease.deadline)


def _nothing(*_: Any, **__: Any) -> None:
    return None


async def _helps_nobody(*_: Any, **__: Any) -> bool:
    return False


def _forgets_promise(given: Promise | None, *, boot: str, started: float, drift_margin: float) -> float:
    if given is None or given.boot != boot:
        return 0.0
    since = given.until - given.seconds * (1 + drift_margin)
    return given.until if since >= started else 0.0


def _promise_binds_nobody(given: Promise | None, **_: Any) -> float:
    del given
    return 0.0


_GIVE = promise.give


def _promises_blindly(epoch: int, holder: str, known: Authority | None, **rest: Any) -> Promise:
    del known
    return _GIVE(epoch, holder, None, **rest)


async def _asks_nothing(context: StepContext, args: Any) -> tuple[Authority, AgentStatus]:
    record = await context.systems.authority.read_authority()
    return record, await context.systems.agent(args.region).status(deadline=3)


async def _replayed_enough(*_: Any) -> None:
    return None


def _may_always_promote(*_: Any) -> None:
    return None


def _lsn_before_the_end(self: Database) -> int:
    return max(0, len(self.rows) - 3)


_AT_ONCE = 1.0


async def _takes_grant_back(self: PromotePostgres, context: StepContext, args: Any) -> Mapping[str, Any]:
    """The new side does not promote at once: give the same epoch back to the old one."""
    del self
    systems = context.systems
    try:
        await systems.agent(args.region).promote(epoch=args.epoch, min_lsn=None, deadline=_AT_ONCE)
    except DriverError:
        record = await systems.authority.read_authority()
        other = await systems.agent(systems.playbook.other_region(args.region)).status(deadline=1)
        holder = Holder(other.instance, other.incarnation)
        if record.epoch == args.epoch:
            back = replace(record, holder=holder, renewal=record.renewal + 1)
            await systems.authority.swap_authority(record, back)
        raise
    return {}


def _append_by_term(events: Sequence[NewEvent], expected: Head) -> Callable[[Contents], Any]:
    def act(contents: Contents) -> Any:
        head = contents.head
        if head.term != expected.term:
            return TermOverError("appending", f"term {head.term} has begun", "Stop")
        return store.put(contents, events, expected.seq)

    return act


def _match_without_txt(
    self: Dns, records: list[dict[str, Any]], record: dict[str, Any]
) -> dict[str, Any] | None:
    del self
    if record["Type"] == "TXT":
        return next(each for each in records if each["Type"] == "TXT")
    return record if record in records else None


_RULES = weighing._rules  # noqa: SLF001 - a breakage stands in its place
_WEIGH = testimony.weigh


def _one_look_is_enough(playbook: Playbook, hold_down: float) -> Any:
    if hold_down == SERVICES_HOLD_DOWN:
        return _RULES(playbook, hold_down)
    return replace(_RULES(playbook, 0.0), sites=1, kinds=1)


def _services_at_once(playbook: Playbook, hold_down: float) -> Any:
    return _RULES(playbook, 0.0 if hold_down == SERVICES_HOLD_DOWN else hold_down)


def _any_site(playbook: Playbook, hold_down: float) -> Any:
    rules = _RULES(playbook, hold_down)
    return replace(rules, sites=1) if hold_down == SERVICES_HOLD_DOWN else rules


def _contradicted_by_nobody(words: Any, subject: str, rules: Any, now: float) -> Any:
    """Of a service only those who find it lost are heard."""
    heard = [each for each in words if each.sight is Sight.UNREACHABLE or "@" not in each.subject]
    return _WEIGH(heard, subject, rules, now)


_TARGET = weighing.target_of


def _could_serve(*arguments: Any) -> Any:
    target = _TARGET(*arguments)
    return None if target is None else replace(target, serving=True)


BREAKAGES = (
    Breakage("deadline-from-answer", "1", "the deadline counts from the answer, however late, not from before the request",
             ((lease, "renewed", _deadline_from_answer), (Lease, "renew", _renews_however_late),
              (store, "_ANSWER_SECONDS", _LATE)), Scenario.DECLARED),
    Breakage("unclear-is-renewal", "1", "an unclear answer counts as a renewal",
             ((Lease, "renew", _unclear_is_renewal),)),
    Breakage("no-drift-margin", "1, 4", "neither the holder nor the waiter allows for clock rates",
             ((lease, "renewed", _no_margin), (actions, "left", _bare_lease), (takeover, "left", _bare_lease), (takeover, "required_wait", lambda a, _: a.lease_seconds),
              (authority, "required_wait", lambda a, _: a.lease_seconds)), Scenario.DECLARED),
    Breakage("no-guard", "2", "nobody but the agent stops the database",
             ((guard, "look", lambda *_, **__: 0.05),)),
    Breakage("only-the-postmaster", "3", "a fence kills the postmaster and leaves its backends",
             ((Server, "kill_processes", _postmaster_only), (Guard, "kill_database", _guard_kills_postmaster))),
    Breakage("receipt-before-dead", "3", "the receipt is given while the database is still dying",
             ((Server, "kill_processes", _receipt_before_dead),)),
    Breakage("no-wait", "4", "the right is freed without a receipt and without waiting",
             ((actions, "enough", _no_wait), (authority, "required_wait", lambda *_: 0.0))),
    Breakage("wall-clock", "4", "the wait is counted on a wall clock that is set meanwhile",
             ((actions, "answered", _wall_clock),)),
    Breakage("decide-from-a-read", "4", "the record is overwritten by what follows from a read, without comparing",
             ((store, "swap", _put),)),
    Breakage("epoch-not-remembered", "5", "an order to promote is obeyed each time that it is delivered",
             ((promote, "delivery", _always_new),), Scenario.SWITCHOVER),
    Breakage("promote-unasked", "5", "an order to promote is obeyed without asking the record",
             ((promote, "_authorised", _authorised_by_nobody), (promote, "may_promote", _may_always_promote),
              (RealDatabase, "arm", _arms_without_a_lease))),
    Breakage("comes-up-writable", "6", "standby.signal is not put back after the promotion",
             ((Server, "make_standby", _not_after_a_promotion),)),
    Breakage("promise-forgotten", "7", "a promise does not outlive a restart",
             ((relaying, "bound_until", _forgets_promise),), Scenario.SIEGE),
    Breakage("promise-binds-nobody", "7", "a grant is accepted in spite of a promise",
             ((relaying, "bound_until", _promise_binds_nobody),)),
    Breakage("promise-after-revoking", "7", "a promise is given although the right is seen to be taken away",
             ((relaying, "give", _promises_blindly),)),
    Breakage("no-peer", "7", "who cannot reach the store asks nobody",
             ((agent, "ask_peer", _helps_nobody),)),
    Breakage("short-lease", "8", "the lease is shorter than the store's election",
             ((run, "FIGURES", replace(Figures(), lease=0.3)),)),
    Breakage("hand-over-below-lsn", "9", "the other side is granted and promoted below the handed-over LSN",
             ((GrantAuthority, "_complete", staticmethod(_asks_nothing)), (promote, "may_promote", _may_always_promote),
              (promote, "_replayed", _replayed_enough))),
    Breakage("lsn-before-the-end", "9", "the recorded LSN is older than the last commit",
             ((Database, "end_told", _lsn_before_the_end),)),
    Breakage("never-back", "9", "a hand-over that cannot go forward is tried again and again, and never goes back",
             ((leader, "goes_back", _helps_nobody),), Scenario.HANDOVER),
    Breakage("grant-taken-back", "10", "a grant is given back to the old side under the same epoch",
             ((PromotePostgres, "act", _takes_grant_back),)),
    Breakage("append-by-term", "11", "an append compares the term alone, not the head",
             ((store, "append", _append_by_term),)),
    Breakage("no-txt-record", "12", "a change of the public record is compared without its epoch",
             ((Dns, "matching", _match_without_txt),), Scenario.SWITCHOVER),
    Breakage("cache-not-flushed", "13", "Redis keeps what the new primary never saw",
             ((Database, "flush_cache", _nothing),)),
    Breakage("one-look", "FA-3", "one look of one site is enough to fail over",
             ((weighing, "_rules", _one_look_is_enough),), Scenario.FLAPPING),
    Breakage("services-at-once", "FA-1", "services that fail are failed over for without a hold-down",
             ((weighing, "_rules", _services_at_once),)),
    Breakage("services-of-one-site", "FA-3", "one site that misses the services is enough, whoever else reaches them",
             ((weighing, "_rules", _any_site), (weighing, "weigh", _contradicted_by_nobody)), Scenario.MIRAGE),
    Breakage("services-anywhere", "FA-1", "services are failed over for to where they could not run either",
             ((leader, "target_of", _could_serve),), Scenario.MIRAGE),
    Breakage("damaged-standby", "FA-1", "a standby that may have replayed the damage is taken for sound",
             ((weighing, "doubt", _nothing), (observe, "doubt", _nothing)), Scenario.DAMAGE),
)  # fmt: skip
"""Every one; `docs/simulation.md` lists them from here."""
