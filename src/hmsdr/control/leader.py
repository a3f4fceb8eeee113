"""What the controller that leads does: finish what was begun, then decide by `hmsdr.decide.leading` and carry it out as a run.

A decision is an event under its term before anything is done about it; carrying it out is the runbook's. It never touches the
authority record itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hmsdr.control.chronicle import DECIDED, DECLARED, HELD, PROPOSED, REFUSED, VETOED, WITHDRAWN, Chronicle
from hmsdr.control.handing import goes_back
from hmsdr.control.logs import log
from hmsdr.control.observer import Observer
from hmsdr.control.proctable import boottime
from hmsdr.control.watch import fresh
from hmsdr.control.weighing import Heard, Weighed, doubt_of, region_of, severity_of, target_of, weigh_all
from hmsdr.decide import consent as consenting
from hmsdr.decide.authority import Authority, Phase
from hmsdr.decide.consent import Consent
from hmsdr.decide.leading import Cause, Decision, Stay, Why, decide
from hmsdr.decide.testimony import Verdict
from hmsdr.errors import HmsdrError, RefusedError
from hmsdr.log.events import NewEvent
from hmsdr.log.store import HeadMovedError, Sitting, Store, StoreError
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.launch import HAND_BACK, REGIONAL, Overrides, Watcher, begin, go_on
from hmsdr.runbook.state import RunState, RunStatus
from hmsdr.runbook.systems import Systems

_NO_OVERRIDES = Overrides()
_FORWARD_RUNS = 1
"""So many runs of a hand-over may fail before it is asked whether the right must go back: nobody can write meanwhile."""
_RETRY_SECONDS = (5.0, 10.0, 30.0, 60.0)


class Leader:
    """One term of one controller.

    Args:
        playbook: the hospital's.
        store: where decisions are written.
        systems: what is acted on.
        observer: our own eyes.
        chronicle: the log, folded.
        name: who decides, for the record.
        term: ours.
        runbook: by which a failover is carried out.
    """

    def __init__(
        self,
        playbook: Playbook,
        store: Store,
        systems: Systems,
        observer: Observer,
        chronicle: Chronicle,
        name: str,
        term: int,
        runbook: str = REGIONAL,
    ) -> None:
        self._playbook = playbook
        self._store = store
        self._systems = systems
        self._observer = observer
        self._chronicle = chronicle
        self._name = name
        self.term = term
        self._runbook = runbook
        self.why = ""
        """Why nothing is decided, as said last."""
        self.blocked = ""
        """Why what was decided is not carried out, as found last."""
        self._run: asyncio.Task[RunState] | None = None
        self._failures = 0
        self._not_before = 0.0
        self._region = ""
        self._refused = ""
        """Why a run could not be begun, as said last."""
        self._gate_closed = False
        """Whether the last run could not be begun."""
        self._held_back: tuple[Stay, float] | None = None
        """What keeps a failover from being carried out although something speaks for it, and since when."""
        self._alerted = False

    @property
    def acting(self) -> bool:
        """Whether a run is under way in our hands."""
        return self._run is not None and not self._run.done()

    @property
    def held_back(self) -> Stay | None:
        """What keeps a failover from being carried out although something speaks for it."""
        return None if self._held_back is None else self._held_back[0]

    async def lead(self, sitting: Sitting, heard: Mapping[str, Heard]) -> None:
        """One round.

        Raises:
            StoreError: what was begun cannot be written any more: another one goes on with it.
        """
        if self._run is not None and self._run.done():
            await self._ended(self._run, sitting)
        if self.acting:
            return
        if (unfinished := self._chronicle.unfinished()) is not None:
            log("run.taken_over", level="warning", run=unfinished.run, term=self.term)
            self._run = asyncio.create_task(
                go_on(self._store, self._systems, unfinished.run, self._watcher(), term=self.term)
            )
            return
        if boottime() < self._not_before:
            return
        record = sitting.authority
        if record.phase is Phase.HELD and record.holder is not None:
            await self._held(sitting, record, heard)
        else:
            await self._finish(record)

    async def stop(self) -> None:
        """Leave what is under way where it is: whoever leads next goes on."""
        if self._run is not None:
            self._run.cancel()
            await asyncio.gather(self._run, return_exceptions=True)

    async def _held(self, sitting: Sitting, record: Authority, heard: Mapping[str, Heard]) -> None:
        source = region_of(self._playbook, record)
        if source is None:
            self._say("the right to write is held by an instance that the playbook does not know")
            return
        if (half := self._half_done(record, source)) is not None:
            parameters = half.plan.parameters
            context = {"trigger": {"kind": "unfinished", "run": half.run}}
            back = HAND_BACK if half.plan.runbook == HAND_BACK else ""
            self._start(parameters["from"], parameters["to"], half.plan.epoch, context, runbook=back)
            return
        target = self._playbook.other_region(source)
        weighed = weigh_all(self._playbook, source, heard, self._observer)
        declared = self._chronicle.noted(DECLARED, source, record.epoch)
        severity = severity_of(self._playbook, source, weighed, self._observer, declared=declared is not None)
        reason: dict[str, Any] = {"severity": severity}
        if declared is not None:
            reason |= {"kind": "disaster-declared", "by": declared.by, "reason": declared.reason}
            overrides = Overrides(declared.overrides, declared.reason, declared.by)
            await self._decided(sitting, record, source, target, reason, overrides)
            return
        decision = self._decide(record, weighed, target)
        if await self._withdrawn(sitting, record, source, weighed):
            return  # the log has moved: the next round sees it
        if isinstance(decision, Stay):
            self._say(f"{source}: {decision.why}")
            await self._alert(sitting, source, decision)
            if decision.cause is None:
                self.blocked = ""
            return
        self._held_back = None
        reason |= {"kind": str(decision.cause), **weighed.shown[decision.cause]}
        if await self._may_go_on(sitting, record, source, decision.cause, reason):
            await self._decided(sitting, record, source, target, reason)

    def _half_done(self, record: Authority, holder: str) -> RunState | None:
        """The failover that gave `holder` the right and ended before it was promoted."""
        last, told = self._chronicle.last_failover(), self._observer.told(holder)
        if last is None or last.status is RunStatus.SUCCEEDED or told is None:
            return None
        at, status = told
        mute = boottime() - at > fresh(self._playbook)
        gave = last.plan.epoch == record.epoch - 1 and last.plan.parameters.get("to") == holder
        return last if gave and not mute and status.database.state != "primary" else None

    def _decide(self, record: Authority, weighed: Weighed, target: str) -> Decision:
        last = self._chronicle.failed_over_at
        return decide(
            record,
            weighed.cases,
            target_of(self._playbook, target, self._observer, weighed.lost_services),
            since_last=None if last is None else boottime() - last,
            cool_down=self._playbook.thresholds.automation.cool_down.total_seconds(),
            fresh=fresh(self._playbook),
        )

    async def _withdrawn(self, sitting: Sitting, record: Authority, source: str, weighed: Weighed) -> bool:
        """Take back what was proposed for a cause that is no more; whether there was any."""
        for case in weighed.cases:
            gone = case.finding.verdict is Verdict.WELL
            if gone and self._chronicle.proposed(source, record.epoch, case.cause) is not None:
                data = {"epoch": record.epoch, "kind": str(case.cause)}
                await self._append(sitting, NewEvent(WITHDRAWN, source, self._name, data))
                return True
        return False

    async def _alert(self, sitting: Sitting, source: str, stay: Stay) -> None:
        """What holds a failover back goes on the record: disagreement at once, what may pass once verification took too long."""
        if stay.cause is None:
            self._held_back = None
            return
        now = boottime()
        if self._held_back is None or self._held_back[0] != stay:
            self._held_back, self._alerted = (stay, now), False
        patience = self._playbook.thresholds.verification.deadline.total_seconds()
        at_once = stay.why in (Why.DISAGREEMENT, Why.COOLING_DOWN)
        if self._alerted or not (at_once or now - self._held_back[1] >= patience):
            return
        doubt = doubt_of(self._playbook, self._playbook.other_region(source), self._observer)
        because = str(doubt) if stay.why is Why.TARGET_DAMAGED and doubt is not None else ""
        log(HELD, level="error", region=source, kind=stay.cause, why=stay.why, because=because)
        data = {
            "epoch": sitting.authority.epoch,
            "kind": str(stay.cause),
            "why": str(stay.why),
            "because": because,
        }
        self._alerted = await self._append(sitting, NewEvent(HELD, source, self._name, data))

    async def _may_go_on(
        self, sitting: Sitting, record: Authority, source: str, cause: Cause, reason: Mapping[str, Any]
    ) -> bool:
        """By the playbook's policy for the cause: at once, or after a proposal that nobody stopped in time."""
        automation = self._playbook.thresholds.automation
        vetoed = self._chronicle.noted(VETOED, source, record.epoch)
        proposed = self._chronicle.proposed(source, record.epoch, cause)
        heard = consenting.Heard(vetoed is not None, None if proposed is None else proposed.at)
        answer = consenting.consent(automation, cause, heard, boottime())
        if vetoed is not None:
            self._say(f"{source}: {vetoed.by} stopped it: {vetoed.reason}")
        elif answer is Consent.WAIT:
            self._say(f"{source}: failover is proposed, and carried out unless somebody stops it")
        elif answer is Consent.PROPOSE:
            data = {"epoch": record.epoch, "veto_seconds": automation.veto.total_seconds(), **reason}
            await self._append(sitting, NewEvent(PROPOSED, source, self._name, data))
            log(PROPOSED, level="warning", region=source, **reason)
        return answer is Consent.GO

    async def _decided(
        self,
        sitting: Sitting,
        record: Authority,
        source: str,
        target: str,
        reason: Mapping[str, Any],
        overrides: Overrides = _NO_OVERRIDES,
    ) -> None:
        """On the record first; then the run."""
        data = {"epoch": record.epoch, "to": target, **reason}
        if self._chronicle.noted(DECIDED, source, record.epoch) is None and not await self._append(
            sitting, NewEvent(DECIDED, source, self._name, data)
        ):
            return
        log("failover.decided", level="warning", region=source, to=target, term=self.term, **reason)
        self._start(source, target, record.epoch, {"trigger": dict(reason)}, overrides)

    def _start(
        self,
        source: str,
        target: str,
        epoch: int,
        context: Mapping[str, Any],
        overrides: Overrides = _NO_OVERRIDES,
        runbook: str = "",
    ) -> None:
        self._region = source
        self._run = asyncio.create_task(
            begin(
                self._store,
                self._systems,
                {"from": source, "to": target},
                by=self._name,
                runbook=runbook or self._runbook,
                overrides=overrides,
                context=context,
                watcher=self._watcher(),
                term=self.term,
                epoch=epoch,
            )
        )

    async def _finish(self, record: Authority) -> None:
        """Nobody may write, and no run is under way: the last failover failed half-way. Going forward is the way out.

        A hand-over that failed to go forward goes back, when only the side that gave can write by it (SAFETY rule 9).
        """
        last = self._chronicle.last_failover()
        if last is None or last.plan.epoch != record.epoch or last.status is RunStatus.SUCCEEDED:
            self._say("nobody holds the right to write, and no failover was begun here: a person must look")
            return
        source: str | None = last.plan.parameters["from"]
        target: str | None = last.plan.parameters["to"]
        context = {"trigger": {"kind": "unfinished", "run": last.run}}
        if record.phase is Phase.HANDING_OVER:
            # The record says which way: the last run may have been one that was to lead back.
            regions = {settings.postgres.instance: name for name, settings in self._playbook.regions.items()}
            source, target = regions.get(str(record.handover_from)), regions.get(str(record.handover_to))
            if source is None or target is None:
                self._say(
                    "the right to write is handed over between instances that the playbook does not know"
                )
                return
            failed = self._chronicle.failed_runs(record.epoch)
            refused = self._gate_closed
            if failed >= _FORWARD_RUNS and await goes_back(self._systems, record, refused=refused):
                log("handover.goes_back", level="error", to=source, failed_runs=failed, epoch=record.epoch)
                self._start(target, source, record.epoch, context, runbook=HAND_BACK)
                return
        self._start(str(source), str(target), record.epoch, context)

    async def _ended(self, run: asyncio.Task[RunState], sitting: Sitting) -> None:
        """What became of the run. A refusal or a failure is tried again, with growing patience."""
        self._run = None
        error = run.exception()
        self._gate_closed = isinstance(error, RefusedError)
        if error is None and run.result().status is RunStatus.SUCCEEDED:
            self._failures, self.blocked = 0, ""
            return
        if isinstance(error, StoreError):
            raise error
        if error is not None and not isinstance(error, HmsdrError):
            raise error
        pause = _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS) - 1)]
        self._failures += 1
        self._not_before = boottime() + pause
        refused = isinstance(error, RefusedError)
        found = str(error) if error is not None else f"it ended {run.result().status}"
        self.blocked = found
        log(REFUSED if refused else "failover.failed", level="error", found=found, again_in=pause)
        if refused and found != self._refused:
            self._refused = found
            data = {"epoch": sitting.authority.epoch, "found": found, "again_in": pause}
            await self._append(sitting, NewEvent(REFUSED, self._region, self._name, data))

    async def _append(self, sitting: Sitting, event: NewEvent) -> bool:
        """Under our term, after everything that was folded; False when somebody appended meanwhile."""
        try:
            await self._store.append([event], expected=sitting.head)
        except HeadMovedError:
            return False
        return True

    def _watcher(self) -> Watcher:
        return Watcher(
            on_start=lambda plan, run: log("run.started", run=run, title=plan.title, mode=plan.mode),
            on_change=lambda state: (
                None
                if state.status is RunStatus.RUNNING
                else log("run.ended", run=state.run, status=state.status)
            ),
        )

    def _say(self, why: str) -> None:
        if why != self.why:
            self.why = why
            log("leader.waits", why=why)
