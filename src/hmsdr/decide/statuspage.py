"""What the public is told on the status page: in patients' words only, from the log alone (CM-3). Pure.

Nothing that anybody wrote is on it: no title, name, number or cause. The same log and time give the same page, whoever makes it, so it
may be made and written any number of times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from hmsdr.decide.incident import Incident, Round, Word
from hmsdr.decide.incidents import Book
from hmsdr.decide.messages import reach_of
from hmsdr.decide.wording import PATIENT_SUBJECTS, PATIENTS, Reach
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import Language, StatusPage

HISTORY = timedelta(days=90)
MOST = 50
_CALM = timedelta(hours=1)
"""While nothing goes on, the time on the page is that of the hour."""
_REACHES: tuple[Reach, ...] = ("all", "some", "slow")


@dataclass(frozen=True, slots=True)
class Notice:
    """One problem, from its beginning to its end; ``until`` is None while it goes on."""

    key: str
    reach: Reach
    word: Word
    since: datetime
    until: datetime | None
    changed_at: datetime
    subjects: Mapping[Language, str]
    sentences: Mapping[Language, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class PublicStatus:
    """All that the page says. ``going`` and ``over`` are newest first."""

    reach: Reach | Literal["none"]
    as_of: datetime
    languages: tuple[Language, ...]
    going: tuple[Notice, ...]
    over: tuple[Notice, ...]

    @property
    def changed_at(self) -> datetime:
        """When anything but the time changed; the page's own time when nothing is on it."""
        return max((each.changed_at for each in (*self.going, *self.over)), default=self.as_of)


def public_status(book: Book, playbook: Playbook, page: StatusPage, now: datetime) -> PublicStatus:
    """The page at `now`.

    Args:
        book: all incidents.
        playbook: its audiences give the languages.
        page: what is shown when.
        now: the time; it is on the page to the minutes of `page.renew`.
    """
    group = playbook.audiences.get(page.audience)
    languages: tuple[Language, ...] = ("en",) if group is None else group.languages
    notices = [
        notice
        for incident in book.incidents.values()
        for number, each in enumerate(incident.rounds, 1)
        if (notice := _notice(incident, number, each, page, languages)) is not None
    ]
    notices.sort(key=lambda each: (each.since, each.key), reverse=True)
    going = tuple(each for each in notices if each.until is None)
    over = tuple(each for each in notices if each.until is not None and now - each.until < HISTORY)[:MOST]
    worst = min((each.reach for each in going), key=_REACHES.index, default=None)
    step = page.renew if going else _CALM
    # The end of something is shown at once, not at the next full hour.
    latest = max((each.changed_at for each in (*going, *over)), default=None)
    as_of = _floor(now, step)
    if latest is not None and as_of < latest <= now:
        as_of = latest
    return PublicStatus(worst or "none", as_of, languages, going, over)


def _notice(
    incident: Incident, number: int, each: Round, page: StatusPage, languages: tuple[Language, ...]
) -> Notice | None:
    """One round of an incident, as the public sees it; None when it does not, or not yet."""
    if each.first_word_at is None and page.show == "after-first-word":
        return None
    reach = reach_of(incident)
    word = Word.RESOLUTION if each.resolved_at else Word.UPDATE if each.updates else Word.FIRST
    moments = (each.declared_at, each.first_word_at, each.last_word_at, each.resolved_at)
    return Notice(
        key=f"{incident.name.lower()}-{number}",
        reach=reach,
        word=word,
        since=each.detected_at,
        until=each.resolved_at,
        changed_at=max(at for at in moments if at is not None),
        subjects={language: PATIENT_SUBJECTS[language][word] for language in languages},
        sentences={language: PATIENTS[language][word][reach] for language in languages},
    )


def _floor(at: datetime, step: timedelta) -> datetime:
    beginning = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return beginning + (at - beginning) // step * step
