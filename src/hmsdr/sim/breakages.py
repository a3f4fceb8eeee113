"""Proof that the checkers can see: each rule of SAFETY.md left out on purpose, and caught.

A breakage replaces one function of the real `hmsdr.decide`, or of a simulated edge, for as long as it is applied. It never
touches a checker. One that is not caught within its seeds is a failure of the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hmsdr.decide import authority, promise, takeover, tenure, testimony
from hmsdr.decide.authority import Authority, LeaseWaited
from hmsdr.decide.outage import Sight
from hmsdr.decide.promise import Promise
from hmsdr.decide.takeover import Side, Takeover
from hmsdr.decide.tenure import Delivery, Tenure
from hmsdr.sim import agent, controller, leader, run, store
from hmsdr.sim.agent import Agent
from hmsdr.sim.controller import Figures
from hmsdr.sim.database import Database, Guard
from hmsdr.sim.faults import Scenario
from hmsdr.sim.leader import Leader
from hmsdr.sim.store import Contents, Entry
from hmsdr.sim.world import SILENCE, Script

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
                stack.callback(setattr, where, name, getattr(where, name))
                setattr(where, name, instead)
            yield


def _deadline_from_answer(self: Agent, taken: Any, new: Authority, asked: float) -> None:
    del asked
    if taken is True:
        self.tenure = tenure.renewed(self.tenure, new, self.machine.clock())


def _unclear_is_renewal(self: Agent, taken: Any, new: Authority, asked: float) -> None:
    if taken is True or taken is SILENCE:
        self.tenure = tenure.renewed(self.tenure, new, asked)


def _hopes(self: Agent) -> Script:
    yield from ()
    if self.tenure.deadline is not None:
        self.tenure = replace(self.tenure, deadline=self.machine.clock() + self.lease / 2)


def _no_margin(state: Tenure, record: Authority, asked: float) -> Tenure:
    return replace(state, record=record, epoch=record.epoch, deadline=asked + record.lease_seconds)


def _bare_lease(state: Takeover, now: float) -> float:
    if state.since is None or state.revoked is None:
        return 0.0
    return max(0.0, state.revoked.lease_seconds - (now - state.since))


def _postmaster_only(self: Agent) -> None:
    self.database.kill(backends=False)


def _guard_kills_postmaster(self: Guard, _: Any = None) -> None:
    if self.deadline is None:
        return
    left = self.deadline - self.machine.clock()
    if left > 1e-9:  # noqa: PLR2004 - rounding
        self.later(left, self._watch)
    elif self.database.able:
        self.database.kill(backends=False)


def _receipt_before_dead(self: Agent) -> None:
    self.later(1.5, self.database.kill)


def _no_wait(state: Takeover, now: float) -> LeaseWaited | authority.Receipt | None:
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


def _always_new(self: Agent, epoch: int) -> Delivery:
    del self, epoch
    return Delivery.NEW


def _promotes_on_demand(self: Agent, epoch: int, least_lsn: int) -> Script:
    del least_lsn
    yield from ()
    if self.delivery(epoch) is Delivery.NEW and not self.database.primary:
        self.database.start_standby()
        self.database.promote(epoch)
        self.disk.promoted_epoch = self.disk.accepted_epoch = epoch
    return True


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _forgets_promise(given: Promise | None, *, boot: str, started: float, drift_margin: float) -> float:
    del started, drift_margin
    return given.until if given is not None and given.boot == boot else 0.0


def _promise_binds_nobody(given: Promise | None, **_: Any) -> float:
    del given
    return 0.0


_GIVE = promise.give


def _promises_blindly(epoch: int, holder: str, known: Authority | None, **rest: Any) -> Promise:
    del known
    return _GIVE(epoch, holder, None, **rest)


def _any_recipient(record: Authority, sides: list[Side], wanted: str | None) -> Side | None:
    has = {side.instance: side for side in sides}
    return next((has[name] for name in (record.handover_to, wanted, *sorted(has)) if name in has), None)


def _may_always_promote(*_: Any) -> None:
    return None


def _lsn_before_the_end(self: Database) -> int:
    lsn = max(0, len(self.rows) - 3)
    self.kill()
    return lsn


_SETTLE = Leader._settle  # noqa: SLF001 - a breakage stands in its place


def _takes_grant_back(self: Leader, seen: Any, record: Authority, region: str) -> Script:
    """The new side does not promote at once: give the same epoch back to the old one."""
    yield from _SETTLE(self, seen, record, region)
    status = self.controller.fresh(region)
    other = self.controller.fresh("west" if region == "east" else "east")
    if (
        record.epoch > 1
        and other is not None
        and (status is None or status["promoted_epoch"] != record.epoch)
    ):
        back = replace(record, holder=other["holder"], renewal=record.renewal + 1)
        yield self.store.ask(self.site, store.swap(record, back), self.figures.timeout)


def _append_by_term(writer: str, kind: str, term: int, basis: int) -> Callable[[Contents], bool]:
    def act(contents: Contents) -> bool:
        if contents.term != term:
            return False
        contents.log.append(Entry(len(contents.log) + 1, term, writer, kind, basis))
        return True

    return act


def _move_without_txt(seen: tuple[str, int], to: str, epoch: int) -> Callable[[Contents], bool]:
    def act(contents: Contents) -> bool:
        if contents.traffic[0] != seen[0]:
            return False
        contents.traffic = (to, epoch)
        return True

    return act


def _one_look_is_enough(self: Figures) -> Any:
    return replace(_RULES(self), hold_down=0.0, sites=1, kinds=1)


_RULES = Figures.rules
_SERVICES_RULES = Figures.services_rules
_WEIGH = testimony.weigh


def _services_at_once(self: Figures) -> Any:
    return replace(_SERVICES_RULES(self), hold_down=0.0)


def _any_site(self: Figures) -> Any:
    return replace(_SERVICES_RULES(self), sites=1)


def _contradicted_by_nobody(words: Any, subject: str, rules: Any, now: float) -> Any:
    """Only those who find it lost are heard."""
    return _WEIGH([each for each in words if each.sight is Sight.UNREACHABLE], subject, rules, now)


BREAKAGES = (
    Breakage("deadline-from-answer", "1", "the deadline counts from the answer, not from before the request",
             ((Agent, "answered", _deadline_from_answer),), Scenario.DECLARED),
    Breakage("unclear-is-renewal", "1", "an unclear answer counts as a renewal",
             ((Agent, "answered", _unclear_is_renewal), (Agent, "_ask_peer", _hopes))),
    Breakage("no-drift-margin", "1, 4", "neither the holder nor the waiter allows for clock rates",
             ((tenure, "renewed", _no_margin), (takeover, "left", _bare_lease), (takeover, "required_wait", lambda a, _: a.lease_seconds),
              (authority, "required_wait", lambda a, _: a.lease_seconds)), Scenario.DECLARED),
    Breakage("no-guard", "2", "nobody but the agent stops the database",
             ((Guard, "_watch", _nothing),)),
    Breakage("only-the-postmaster", "3", "a fence kills the postmaster and leaves its backends",
             ((Agent, "kill_database", _postmaster_only), (Guard, "_watch", _guard_kills_postmaster))),
    Breakage("receipt-before-dead", "3", "the receipt is given while the database is still dying",
             ((Agent, "kill_database", _receipt_before_dead),)),
    Breakage("no-wait", "4", "the right is freed without a receipt and without waiting",
             ((takeover, "enough", _no_wait), (authority, "required_wait", lambda *_: 0.0))),
    Breakage("wall-clock", "4", "the wait is counted on a wall clock that is set meanwhile",
             ((takeover, "answered", _wall_clock),)),
    Breakage("decide-from-a-read", "4", "the record is overwritten by what follows from a read, without comparing",
             ((leader, "swap", _put), (agent, "swap", _put))),
    Breakage("epoch-not-remembered", "5", "an order to promote is obeyed each time that it is delivered",
             ((Agent, "delivery", _always_new),)),
    Breakage("promote-unasked", "5", "an order to promote is obeyed without asking the record",
             ((Agent, "promote", _promotes_on_demand),)),
    Breakage("comes-up-writable", "6", "standby.signal is not put back after the promotion",
             ((Agent, "put_back_standby_signal", _nothing),)),
    Breakage("promise-forgotten", "7", "a promise does not outlive a reboot",
             ((promise, "bound_until", _forgets_promise),)),
    Breakage("promise-binds-nobody", "7", "a grant is accepted in spite of a promise",
             ((promise, "bound_until", _promise_binds_nobody),)),
    Breakage("promise-after-revoking", "7", "a promise is given although the right is seen to be taken away",
             ((promise, "give", _promises_blindly),)),
    Breakage("no-peer", "7", "who cannot reach the store asks nobody",
             ((Agent, "_ask_peer", lambda _: iter(())),)),
    Breakage("short-lease", "8", "the lease is shorter than the store's election",
             ((run, "FIGURES", replace(Figures(), lease=0.3)),)),
    Breakage("hand-over-below-lsn", "9", "the other side is granted and promoted below the handed-over LSN",
             ((takeover, "recipient", _any_recipient), (agent, "may_promote", _may_always_promote))),
    Breakage("lsn-before-the-end", "9", "the recorded LSN is older than the last commit",
             ((Database, "stop_cleanly", _lsn_before_the_end),)),
    Breakage("grant-taken-back", "10", "a grant is given back to the old side under the same epoch",
             ((Leader, "_settle", _takes_grant_back),)),
    Breakage("append-by-term", "11", "an append compares the term alone, not the head",
             ((leader, "append", _append_by_term), (controller, "append", _append_by_term))),
    Breakage("no-txt-record", "12", "a change of the public record is compared without its epoch",
             ((leader, "move_traffic", _move_without_txt),), Scenario.SWITCHOVER),
    Breakage("cache-not-flushed", "13", "Redis keeps what the new primary never saw",
             ((Database, "flush_cache", _nothing),)),
    Breakage("one-look", "FA-3", "one look of one site is enough to fail over",
             ((Figures, "rules", _one_look_is_enough),)),
    Breakage("services-at-once", "FA-1", "services that fail are failed over for without a hold-down",
             ((Figures, "services_rules", _services_at_once),)),
    Breakage("services-of-one-site", "FA-3", "one site that misses the services is enough, whoever else reaches them",
             ((Figures, "services_rules", _any_site), (leader, "weigh", _contradicted_by_nobody)), Scenario.MIRAGE),
    Breakage("services-anywhere", "FA-1", "services are failed over for to where they could not run either",
             ((Leader, "_could_serve", lambda *_: True),), Scenario.MIRAGE),
)  # fmt: skip
"""Every one; `docs/simulation.md` lists them from here."""
