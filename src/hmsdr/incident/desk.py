"""What people do to incidents, on the record: each is checked against the log as it is when it is written, and nothing is overwritten.

Two who act at once are put in order by the log; who comes second is judged by what the first one did. Who may do what is not decided
here: the log says who said they did it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hmsdr.decide.incident import MOVES, SEVERITIES, Incident, Signal, Status, graver
from hmsdr.decide.incidents import (
    ACKNOWLEDGED,
    ASSIGNED,
    JOINED,
    NOTED,
    REOPENED,
    SEVERITY,
    STATUS,
    TICKED,
    Book,
    fold,
)
from hmsdr.decide.joining import Entry, observed, opening, route
from hmsdr.decide.oncall import assigned
from hmsdr.decide.response import ITEMS
from hmsdr.decide.severity import Situation, propose
from hmsdr.errors import RefusedError
from hmsdr.incident.snapshot import current
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import Store
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import SeverityName

MOST_TEXT = 2000
KEEPER = "keeper"
FIELDS = (
    "impact", "patients", "services", "cause", "progress", "issues", "next-steps", "workarounds", "mitigation", "eta", "resolution",
    "data-loss", "actions-taken", "improvements", "post-mortem", "war-room", "evidence", "failover",
)  # fmt: skip
"""What a note may fill in: fields of the messages and of the checklist."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_Make = Callable[[Book, Incident], Sequence[NewEvent]]


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a person declares.

    ``severity`` is the person's own word, with ``reason``; ``apart`` opens a second incident beside one that goes on.
    """

    title: str
    by: str
    seen: Situation | None = None
    severity: SeverityName | None = None
    reason: str = ""
    apart: bool = False


class Desk:
    """The incidents of one log.

    Args:
        playbook: the hospital's.
        store: its log.
        snapshot: where a folded book is kept; None without one.
    """

    def __init__(self, playbook: Playbook, store: Store, snapshot: Path | None = None) -> None:
        self._playbook = playbook
        self._store = store
        self._snapshot = snapshot
        self._book: Book | None = None

    async def book(self) -> Book:
        """All incidents, as of now."""
        if self._book is None:
            self._book = await current(self._store, self._snapshot)
        else:
            self._book = fold(self._book, await self._store.read(self._book.seq))
        return self._book

    async def incident(self, name: str, doing: str) -> Incident:
        """One of them, as of now.

        Raises:
            RefusedError: there is none of that name.
        """
        return _named(await self.book(), name, doing)

    async def route(self, active: str | None) -> int:
        """Give every signal that has none its incident; how many events that took."""
        written = 0

        async def routed() -> list[NewEvent]:
            nonlocal written
            entries = route(await self.book(), self._playbook, datetime.now(UTC), active)
            written = len(entries)
            return [_event(entry, KEEPER) for entry in entries]

        await append_after(self._store, routed, doing="giving alerts their incident")
        return written

    async def declare(self, said: Declaration, active: str | None) -> tuple[Incident, bool]:
        """Declare one; what is seen already, and has no incident, is part of it.

        Returns:
            The incident, and whether it is a new one: while one goes on, this is part of it, unless `apart`.

        Raises:
            RefusedError: something in it is not as it must be.
        """
        doing = "declaring an incident"
        title = text_of(said.title, doing, "title", most=160, lines=False)
        by = text_of(said.by, doing, "name", most=100, lines=False)
        reason = text_of(said.reason, doing, "reason", empty=True)
        named, fresh = "", False

        async def declared() -> list[NewEvent]:
            nonlocal named, fresh
            book = await self.book()
            going = book.active()
            fresh = not going or said.apart
            if not fresh:
                named = going[-1].name
                return self._part_of(going[-1], said, title, by, reason)
            pending: list[Signal] = list(book.pending.values()) if not going else []
            entry = opening(
                book, self._playbook, datetime.now(UTC), title=title, signals=pending, seen=said.seen,
                active=active, severity=said.severity, reason=reason,
            )  # fmt: skip
            named = entry.subject
            return [_event(entry, by)]

        await append_after(self._store, declared, doing=doing)
        return await self.incident(named, doing), fresh

    def _part_of(
        self, incident: Incident, said: Declaration, title: str, by: str, reason: str
    ) -> list[NewEvent]:
        events = [NewEvent(NOTED, incident.name, by, {"text": f"Declared too: {title}"})]
        if said.seen is not None and (seen := observed(said.seen)):
            found = propose(said.seen)
            proposed = {} if found is None else {"proposed": graver(found.severity, incident.proposed)}
            reasons = [] if found is None else found.reasons
            data: dict[str, Any] = {
                "seen": seen,
                "reasons": list(dict.fromkeys((*incident.reasons, *reasons))),
                **proposed,
            }
            events.append(NewEvent(JOINED, incident.name, by, data))
        if said.severity is not None and said.severity != incident.severity:
            word = {"severity": said.severity, "reason": reason or title}
            events.append(NewEvent(SEVERITY, incident.name, by, word))
        return events

    async def acknowledge(self, name: str, by: str) -> Incident:
        """Somebody has it in hand; said again, it is a sign of life."""

        def made(_: Book, incident: Incident) -> list[NewEvent]:
            _going(incident, f"acknowledging {name}")
            return [NewEvent(ACKNOWLEDGED, incident.name, by, {})]

        return await self._do(name, by, f"acknowledging {name}", made)

    async def severity(self, name: str, by: str, severity: str, reason: str) -> Incident:
        """Overrule the severity (CL-3)."""
        doing = f"changing the severity of {name}"
        if severity not in SEVERITIES:
            raise RefusedError(
                doing, f"there is no {severity!r}", nearest(severity, SEVERITIES) or ", ".join(SEVERITIES)
            )
        why = text_of(reason, doing, "reason")

        def made(_: Book, incident: Incident) -> list[NewEvent]:
            _going(incident, doing)
            return [NewEvent(SEVERITY, incident.name, by, {"severity": severity, "reason": why})]

        return await self._do(name, by, doing, made)

    async def assign(self, name: str, by: str, role: str, person: str) -> Incident:
        """Give a role to a person of the playbook."""
        doing = f"assigning a role of {name}"
        people = [each.name for each in self._playbook.people]
        if person not in people:
            raise RefusedError(
                doing, f"the playbook has no {person!r}", nearest(person, people) or ", ".join(people)
            )

        def made(_: Book, incident: Incident) -> list[NewEvent]:
            _going(incident, doing)
            if role not in incident.roles:
                known = ", ".join(incident.roles)
                raise RefusedError(
                    doing, f"there is no role {role!r}", nearest(role, incident.roles) or known
                )
            return [NewEvent(ASSIGNED, incident.name, by, {"role": role, "person": person})]

        return await self._do(name, by, doing, made)

    async def note(self, name: str, by: str, text: str, field: str | None) -> Incident:
        """Put something on the record; with a field, it fills that in, in messages and checklist."""
        doing = f"noting something about {name}"
        if field is not None and field not in FIELDS:
            raise RefusedError(
                doing, f"there is no field {field!r}", nearest(field, FIELDS) or ", ".join(FIELDS)
            )
        said = text_of(text, doing, "text")
        data = {"text": said} if field is None else {"text": said, "field": field}
        return await self._do(name, by, doing, lambda _, found: [NewEvent(NOTED, found.name, by, data)])

    async def tick(self, name: str, by: str, item: str, evidence: str, *, done: bool) -> Incident:
        """Tick an item of the checklist, or open it again."""
        doing = f"ticking an item of {name}"
        if item not in ITEMS:
            raise RefusedError(doing, f"there is no item {item!r}", nearest(item, ITEMS) or ", ".join(ITEMS))
        shown = text_of(evidence, doing, "evidence", empty=True)
        data = {"item": item, "done": done, "evidence": shown}
        return await self._do(name, by, doing, lambda _, found: [NewEvent(TICKED, found.name, by, data)])

    async def status(self, name: str, by: str, status: str, text: str = "") -> Incident:
        """Move it on in its life."""
        doing = f"changing the status of {name}"
        known = [str(each) for each in Status if each not in (Status.DECLARED, Status.ACKNOWLEDGED)]
        if status not in known:
            raise RefusedError(
                doing, f"there is no {status!r} to set", nearest(status, known) or ", ".join(known)
            )
        said = text_of(text, doing, "text", empty=True)

        def made(_: Book, incident: Incident) -> list[NewEvent]:
            if Status(status) not in MOVES[incident.status]:
                ways = sorted(MOVES[incident.status] - {Status.DECLARED, Status.ACKNOWLEDGED})
                remedy = (
                    f"From there: {', '.join(ways)}" if ways else "`hmsdr incident reopen` begins it again"
                )
                raise RefusedError(doing, f"it is {incident.status}", remedy)
            events = [NewEvent(STATUS, incident.name, by, {"status": status})]
            if said and status == Status.RESOLVED:
                events.append(NewEvent(NOTED, incident.name, by, {"text": said, "field": "resolution"}))
            elif said:
                events.append(NewEvent(NOTED, incident.name, by, {"text": said}))
            return events

        return await self._do(name, by, doing, made)

    async def reopen(self, name: str, by: str, reason: str) -> Incident:
        """It came back: whoever is on call now is called again."""
        doing = f"reopening {name}"
        why = text_of(reason, doing, "reason")

        def made(_: Book, incident: Incident) -> list[NewEvent]:
            if incident.active:
                raise RefusedError(doing, f"it is {incident.status}", "It goes on: nothing is to be reopened")
            on_call = assigned(self._playbook, datetime.now(UTC))
            roles = {role: list(chain) for role, chain in on_call.items()}
            data = {"reason": why, "roles": roles, "signals": []}
            return [NewEvent(REOPENED, incident.name, by, data)]

        return await self._do(name, by, doing, made)

    async def record(self, name: str, by: str, doing: str, make: _Make) -> Incident:
        """Write what `make` gives for the incident as it is then; asked again when somebody was faster."""
        return await self._do(name, by, doing, make)

    async def _do(self, name: str, by: str, doing: str, make: _Make) -> Incident:
        text_of(by, doing, "name", most=100, lines=False)

        async def made() -> Sequence[NewEvent]:
            book = await self.book()
            return make(book, _named(book, name, doing))

        await append_after(self._store, made, doing=doing)
        return await self.incident(name, doing)


def text_of(
    text: str, doing: str, what: str, *, most: int = MOST_TEXT, empty: bool = False, lines: bool = True
) -> str:
    """What a person wrote, as it may go on the record.

    Raises:
        RefusedError: nothing, too long, or with characters that are no text.
    """
    found = text.strip()
    if not found and not empty:
        raise RefusedError(doing, f"the {what} is empty", f"Say it in words: the {what} goes on the record")
    if len(found) > most:
        raise RefusedError(
            doing, f"the {what} has {len(found)} characters", f"At most {most}; attach the rest elsewhere"
        )
    if _CONTROL.search(found) or (not lines and "\n" in found):
        raise RefusedError(doing, f"the {what} has control characters in it", "Write plain text")
    return found


def _named(book: Book, name: str, doing: str) -> Incident:
    if name in book.incidents:
        return book.incidents[name]
    known = list(book.incidents)
    remedy = nearest(name, known) or (f"The last is {known[-1]}" if known else "There is none yet")
    raise RefusedError(doing, "there is no such incident", f"{remedy}; `hmsdr incident list` shows all")


def _going(incident: Incident, doing: str) -> None:
    if not incident.active:
        raise RefusedError(
            doing,
            f"it is {incident.status}",
            f"`hmsdr incident reopen {incident.name} --reason TEXT --by NAME` if it came back",
        )


def _event(entry: Entry, actor: str) -> NewEvent:
    return NewEvent(entry.kind, entry.subject, actor, entry.data)
