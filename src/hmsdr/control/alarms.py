"""Alerts reach people: what begins and ends is recorded, then told on the team's channels, with patience, beside everything else.

The record is the dedupe: whoever leads next, or begins anew, folds it and says nothing twice. Telling is at least once, each message
with its key. Nothing waits for it, and no fault of it ends a controller. Incidents stand on the same events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from hmsdr.control.logs import log
from hmsdr.control.proctable import boottime
from hmsdr.decide.alerts import Alert, Clocks, Condition, Due, Ledger, Moment, weigh
from hmsdr.drivers.errors import DriverError, PermanentError
from hmsdr.errors import HmsdrError
from hmsdr.log.append import append_after
from hmsdr.log.events import Event, NewEvent
from hmsdr.log.store import EventLog
from hmsdr.runbook.systems import Systems
from hmsdr.runbook.team import tell

BEGAN, ENDED = "alert.began", "alert.ended"
TOLD, NOT_TOLD = "alert.told", "alert.not_told"
_LOG_SECONDS = 10.0
_POST_SECONDS = 5.0
_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
TELL_SECONDS = 600.0
"""For so long one message is tried."""
_TEXT = 600


def fold(ledger: Ledger, events: Iterable[Event]) -> Ledger:
    """The record with `events` more; those that were read before are passed over."""
    for event in events:
        if event.seq <= ledger.seq:
            continue
        data = event.data
        if event.kind == BEGAN:
            alert = Alert(event.subject, event.seq, str(data.get("text", "")), str(data.get("remedy", "")))
            ledger = ledger.began(event.seq, alert)
        elif event.kind == ENDED:
            ledger = ledger.ended(event.seq, event.subject)
        elif event.kind in (TOLD, NOT_TOLD) and data.get("moment") in tuple(Moment):
            ledger = ledger.settle(event.seq, int(data.get("number", 0)), Moment(data["moment"]))
        else:
            ledger = ledger.read(event.seq)
    return ledger


class Alarms:
    """Alerts by one record.

    Args:
        record: the log that they stand in.
        systems: where the channels are.
        name: who speaks, for the record and for whoever reads.
        conditions: what is looked at; None while it is not ours to look.
        interval: from one look to the next, in seconds.
        clear: for how long a condition must be gone, in seconds.
    """

    def __init__(
        self,
        record: EventLog,
        systems: Systems,
        name: str,
        conditions: Callable[[], list[Condition] | None],
        *,
        interval: float,
        clear: float,
        tell_seconds: float = TELL_SECONDS,
    ) -> None:
        self.ledger = Ledger()
        self._record = record
        self._systems = systems
        self._name = name
        self._conditions = conditions
        self._interval, self._clear, self._tell_seconds = interval, clear, tell_seconds
        self._clocks = Clocks()
        self._attempts: dict[tuple[int, Moment], tuple[float, int, float]] = {}
        """By message: when it was tried first, how often, not before."""

    def take(self, events: Iterable[Event]) -> None:
        """What was appended to the record."""
        self.ledger = fold(self.ledger, events)

    async def run(self) -> None:
        """Look and tell, for ever; telling never keeps from looking."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again_and_again(self._look))
            group.create_task(self._again_and_again(self._tell_next))

    async def _again_and_again(self, step: Callable[[], Any]) -> None:
        said = ""
        while True:
            try:
                await step()
                said = ""
            except Exception as error:  # alerts are beside the failover, and must not end who leads it
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise  # an end that was asked for is one
                found = str(error) if isinstance(error, HmsdrError) else f"{type(error).__name__}: {error}"
                if found != said:
                    said = found
                    log("alert.not_done", level="warning", found=found)
            await asyncio.sleep(self._interval)

    async def _look(self) -> None:
        found = self._conditions()
        if found is None:
            self._clocks = Clocks()
            return
        self._clocks, due = weigh(self._clocks, self.ledger.open(), found, boottime(), self._clear)
        if due.begin or due.end:
            await self._append(partial(self._due, due), "recording alerts")

    async def _due(self, due: Due) -> list[NewEvent]:
        """What of it is still not on the record."""
        opened = (await self._read()).open()
        began = [
            NewEvent(BEGAN, each.key, self._name, {"text": each.text[:_TEXT], "remedy": each.remedy[:_TEXT]})
            for each in due.begin
            if each.key not in opened
        ]
        return [*began, *(NewEvent(ENDED, key, self._name, {}) for key in due.end if key in opened)]

    async def _tell_next(self) -> None:
        if self._conditions() is None:
            return
        now = boottime()
        for alert, moment in self.ledger.untold():
            began, tries, not_before = self._attempts.get((alert.number, moment), (now, 0, 0.0))
            if now >= not_before:
                await self._tell(alert, moment, began, tries)
                return

    async def _tell(self, alert: Alert, moment: Moment, began: float, tries: int) -> None:
        key = f"alert/{alert.number}/{moment}"
        data: dict[str, Any] = {"moment": moment, "number": alert.number}
        try:
            posted = await tell(self._systems, self._words(alert, moment), key, seconds=lambda: _POST_SECONDS)
        except DriverError as error:
            late = boottime() - began >= self._tell_seconds
            if not late and not isinstance(error, PermanentError):
                pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
                self._attempts[alert.number, moment] = (began, tries + 1, boottime() + pause)
                log("alert.not_told_yet", level="warning", alert=alert.key, found=error.found, again_in=pause)
                return
            log("alert.not_told", level="error", alert=alert.key, moment=moment, found=error.found)
            settled = NewEvent(
                NOT_TOLD, alert.key, self._name, {**data, "found": error.found, "remedy": error.remedy}
            )
        else:
            log("alert.told", alert=alert.key, moment=moment, channel=posted.channel)
            told = {"channel": posted.channel, "failed_before": list(posted.failed_before)}
            settled = NewEvent(TOLD, alert.key, self._name, {**data, **told})
        self._attempts.pop((alert.number, moment), None)
        await self._append(partial(self._settled, alert.number, moment, settled), "recording who was told")

    async def _settled(self, number: int, moment: Moment, event: NewEvent) -> list[NewEvent]:
        alert = (await self._read()).alerts.get(number)
        return [] if alert is None or moment in alert.settled else [event]

    async def _read(self) -> Ledger:
        """The record as of now: what is appended after it makes the append that follows fail, and this is asked again."""
        self.take(await self._record.read(self.ledger.seq))
        return self.ledger

    async def _append(self, make: Callable[[], Any], doing: str) -> None:
        async with asyncio.timeout(_LOG_SECONDS):
            await append_after(self._record, make, doing=doing)
            await self._read()

    def _words(self, alert: Alert, moment: Moment) -> str:
        hospital, at = self._systems.playbook.name, f"{datetime.now(UTC):%H:%M:%S} UTC"
        if moment is Moment.ENDED:
            return f"{hospital}: OVER: {alert.text}. ({alert.key}, {self._name}, {at})"
        return f"{hospital}: ALERT: {alert.text}. To do: {alert.remedy}. ({alert.key}, {self._name}, {at})"

    def as_json(self) -> list[dict[str, Any]]:
        """For `/v1/view`: what is open, or not told yet."""
        return [
            {
                "alert": each.key,
                "text": each.text,
                "remedy": each.remedy,
                "ended": each.ended,
                "told": sorted(each.settled),
            }
            for each in self.ledger.alerts.values()
        ]


async def catch_up(alarms: Alarms, record: EventLog) -> None:
    """Fold what is in a record of one's own; what cannot be read is folded later."""
    with suppress(HmsdrError):
        alarms.take(await record.read())
