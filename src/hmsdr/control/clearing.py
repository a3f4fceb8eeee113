"""Clearing the signs of damage of a copy, on a named person's word: only after every page and every relation was checked and found well.

The word, the signs and the checks are in the log before anything is forgotten. An order to promote ends the checks, as any other.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from hmsdr.control.amcheck import amcheck
from hmsdr.control.checksums import compare, progress
from hmsdr.control.database import Role
from hmsdr.control.inspection import Inspection
from hmsdr.control.logs import log
from hmsdr.decide.soundness import Sign
from hmsdr.errors import HmsdrError, RefusedError
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import EventLog

CLEARED = "damage.cleared"
"""The event: its subject is the region, its actor who said so."""
_ASK_SECONDS = 3.0
_LOG_SECONDS = 15.0
_CHECKSUMS = "every page's checksum"
State = Literal["none", "running", "cleared", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the last order is. ``part`` is how much of the stage is done, from 0 to 1, None where that cannot be told."""

    state: State = "none"
    by: str = ""
    reason: str = ""
    stage: str = ""
    part: float | None = None
    found: str = ""
    began_at: str = ""
    ended_at: str = ""


class Clearing:
    """One order at a time, for one database.

    Args:
        inspection: the agent's eyes, whose place the checks take.
        journal: where it is recorded; None where there is no log, and then nothing is cleared.
    """

    def __init__(self, inspection: Inspection, journal: EventLog | None) -> None:
        self._inspection = inspection
        self._database = inspection.database
        self._journal = journal
        self.progress = Progress()

    def told(self) -> dict[str, Any]:
        """For the agent's interface."""
        return asdict(self.progress)

    async def order(self, by: str, reason: str) -> None:
        """Begin; what becomes of it is told by `progress`.

        Raises:
            RefusedError: there is nothing to clear, another order is under way, or the database does not run.
        """
        doing = f"clearing the damage of {self._database.config.instance.instance}"
        if self.progress.state == "running":
            raise RefusedError(
                doing, f"{self.progress.by} had that begun already", "`hmsdr damage show` tells how far it is"
            )
        if not self._inspection.book.signs:
            raise RefusedError(doing, "it shows no sign of damage", "There is nothing to clear")
        if self._database.role is Role.STOPPED:
            raise RefusedError(
                doing,
                "it does not run, so nothing can be checked",
                "Have it run as primary or standby first; a copy that does not start has to be made anew",
            )
        if self._journal is None:
            raise RefusedError(doing, "there is no log to record it in", "Give the agent its store")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.progress = Progress("running", by, reason, _CHECKSUMS, began_at=now)
        log("damage.clear_ordered", by=by, reason=reason)
        await self._inspection.begin(self._clear(self._journal, by, reason))

    async def _clear(self, journal: EventLog, by: str, reason: str) -> None:
        try:
            self._end(*await self._checked(journal, by, reason))
        except (HmsdrError, OSError, TimeoutError) as error:
            self._end("failed", str(error) or "no answer in time")
        except asyncio.CancelledError:
            self._end(
                "failed", "it was ended for something more urgent, an order to promote say: order it again"
            )
            raise

    def _end(self, state: State, found: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.progress = replace(self.progress, state=state, found=found, ended_at=now, part=None)
        log("damage.clear_ended", level="info" if state == "cleared" else "warning", state=state, found=found)

    async def _checked(self, journal: EventLog, by: str, reason: str) -> tuple[State, str]:
        book, database = self._inspection.book, self._database
        signs = book.signs
        began = datetime.now(UTC).isoformat(timespec="milliseconds")
        lsn, timeline = database.meter.last.lsn, database.meter.last.timeline
        sums = await database.sql.checksums(deadline=_ASK_SECONDS)
        if sums and (ended := await self._compare()) is not None:
            return ended
        if (ended := await self._amcheck()) is not None:
            return ended
        counted = (await database.sql.integrity(deadline=_ASK_SECONDS)).checksum_failures
        book.read_log(database.meter.last.lsn)
        new = [sign for sign in book.signs if sign not in signs]
        if new:
            return "refused", f"new signs came meanwhile: {_named(new)}"
        self.progress = replace(self.progress, stage="recording", part=None)
        data = {
            "reason": reason,
            "signs": [{**asdict(sign), "kind": str(sign.kind)} for sign in signs],
            "checked": ["checksums", "pg_amcheck"] if sums else ["pg_amcheck"],
        }
        region = database.config.region

        async def cleared() -> list[NewEvent]:
            return [NewEvent(CLEARED, region, by, data)]

        async with asyncio.timeout(_LOG_SECONDS):
            await append_after(journal, cleared, doing=f"recording that the damage of {region} is cleared")
        book.clear(signs, counted)
        book.checked(began=began, lsn=lsn, timeline=timeline)
        return "cleared", _named(signs)

    async def _compare(self) -> tuple[State, str] | None:
        """Every page's checksum; what ends the order, if anything does."""
        self.progress = replace(self.progress, stage=_CHECKSUMS, part=0.0)
        following = asyncio.create_task(self._follow())
        database = self._database
        try:
            compared = await compare(
                database.config, database.server, database.sql, deadline=self._inspection.at_most
            )
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        if compared.found:
            return "refused", f"its checksum is wrong: {', '.join(compared.found)}"
        return None if compared.complete else ("failed", f"checksums: {compared.why}")

    async def _follow(self) -> None:
        while True:
            part = await progress(self._database.sql)
            if part is not None:
                self.progress = replace(self.progress, part=round(part, 3))
            await asyncio.sleep(0.5)

    async def _amcheck(self) -> tuple[State, str] | None:
        self.progress = replace(self.progress, stage="tables and indexes (pg_amcheck)", part=None)
        database = self._database
        checked = await amcheck(
            database.config,
            database.server,
            database.sql,
            primary=database.role is Role.PRIMARY,
            deadline=self._inspection.at_most,
        )
        if checked.found:
            return "refused", "; ".join(f"{kind} {where}" for kind, where in sorted(checked.found))
        return None if checked.complete else ("failed", f"pg_amcheck: {checked.why}")


def _named(signs: list[Sign] | tuple[Sign, ...]) -> str:
    return ", ".join(f"{sign.kind} in {sign.where}" for sign in signs)
