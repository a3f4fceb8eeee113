"""Whether the team's numbers and addresses still reach them: a fold of who confirmed what, and who is to be asked (CO-4). Pure.

A confirmation holds for the number and address that were in the playbook then: another number is unconfirmed. Who is the only one in a
place, or is in several, is said as well: one lost telephone must not take two roles away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from hmsdr.decide.oncall import awake
from hmsdr.decide.signals import Recorded
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import Person

ASKED, CONFIRMED = "contact.asked", "contact.confirmed"
ASK_AGAIN = timedelta(days=7)
"""Who did not confirm is asked again after so long."""
EARLY = timedelta(days=7)
"""Before a confirmation is stale, people are asked for the next one."""


class Standing(StrEnum):
    """How sure a contact is."""

    CONFIRMED = "confirmed"
    STALE = "stale"
    """It was confirmed, too long ago."""
    CHANGED = "changed"
    """Another number or address was confirmed."""
    NEVER = "never confirmed"


@dataclass(frozen=True, slots=True)
class _Confirmed:
    at: datetime
    phone: str
    email: str


@dataclass(frozen=True, slots=True)
class Directory:
    """The log as far as it was read: by name, the last confirmation, and when and how often somebody was asked."""

    seq: int = 0
    confirmed: Mapping[str, _Confirmed] = field(default_factory=dict)
    asked: Mapping[str, tuple[datetime, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Known:
    """One person, as of now. ``alone`` are roles that nobody else holds; ``several`` says that they are in more than one place."""

    person: Person
    standing: Standing
    confirmed_at: datetime | None
    due_at: datetime | None
    asked_at: datetime | None
    roles: tuple[str, ...]
    alone: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Whether they are missing in several places at once."""
        return len(self.roles) > 1


def fold(directory: Directory, events: Iterable[Recorded]) -> Directory:
    """The directory with `events` more."""
    seq, confirmed, asked = directory.seq, dict(directory.confirmed), dict(directory.asked)
    for event in events:
        fresh, seq = event.seq > seq, max(seq, event.seq)
        if not fresh:
            continue
        if event.kind == CONFIRMED:
            phone, email = str(event.data.get("phone", "")), str(event.data.get("email", ""))
            confirmed[event.subject] = _Confirmed(event.at, phone, email)
        elif event.kind == ASKED:
            asked[event.subject] = (event.at, asked.get(event.subject, (event.at, 0))[1] + 1)
    return Directory(seq, confirmed, asked)


def known(directory: Directory, playbook: Playbook, now: datetime) -> tuple[Known, ...]:
    """Everybody of the team, in the playbook's order."""
    return tuple(_known(directory, playbook, person, now) for person in playbook.people)


def to_ask(directory: Directory, playbook: Playbook, now: datetime) -> tuple[str, ...]:
    """Who is to be asked now; nobody in quiet hours."""
    if awake(playbook.on_call, now) != now:
        return ()
    early = min(EARLY, playbook.contacts.verify_every / 2)
    return tuple(
        each.person.name
        for each in known(directory, playbook, now)
        if (
            each.standing is not Standing.CONFIRMED
            or (each.due_at is not None and each.due_at - now <= early)
        )
        and (each.asked_at is None or now - each.asked_at >= ASK_AGAIN)
    )


def _known(directory: Directory, playbook: Playbook, person: Person, now: datetime) -> Known:
    last = directory.confirmed.get(person.name)
    due = None if last is None else last.at + playbook.contacts.verify_every
    if last is None or due is None:
        standing = Standing.NEVER
    elif (last.phone, last.email) != (person.phone, person.email):
        standing = Standing.CHANGED
    else:
        standing = Standing.STALE if now >= due else Standing.CONFIRMED
    places = {name: {role.primary, role.backup} - {None} for name, role in playbook.roles.items()}
    for name, duty in playbook.on_call.roles.items():
        if name in places and duty.rotation is not None:
            places[name] |= set(duty.rotation.people)
    roles = tuple(name for name, people in places.items() if person.name in people)
    alone = tuple(name for name in roles if len(places[name]) == 1)
    asked = directory.asked.get(person.name)
    return Known(
        person,
        standing,
        None if last is None else last.at,
        due,
        None if asked is None else asked[0],
        roles,
        alone,
    )
