"""The messages of an incident: the source's three templates, filled from the log, in the words of each audience (CM-3, CM-4). Pure.

A field that nobody has filled is marked, and the message still goes. What may tell of a patient is withheld, and said to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from hmsdr.decide.harmless import WITHHELD, Withheld, one_line, shown, tells_of_a_patient, written
from hmsdr.decide.incident import Incident, Status, Word
from hmsdr.decide.oncall import COMMANDER
from hmsdr.decide.wording import BEDSIDE, PATIENT_SUBJECTS, PATIENTS, SUBJECTS, Reach
from hmsdr.playbook.base import format_duration
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import Language, Wording

TEAM = "response-team"
"""The audience that needs no entry in the playbook."""
MISSING = "[not known yet]"
_MOST_ALERTS = 5
MOST_SUBJECT = 140
"""Characters."""
STATUS_WORDS: dict[Status, str] = {
    Status.DECLARED: "Declared; nobody has acknowledged yet",
    Status.ACKNOWLEDGED: "The team is on it and looks for the cause",
    Status.MITIGATING: "Mitigation is under way",
    Status.MONITORING: "Mitigated; its effect is being watched",
    Status.RESOLVED: "Resolved",
    Status.REVIEWED: "Resolved and reviewed",
}
"""Each state in words."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``missing`` are fields that nobody has filled; ``withheld`` is what was kept back."""

    audience: str
    word: Word
    language: Language
    subject: str
    body: str
    missing: tuple[str, ...] = ()
    withheld: tuple[Withheld, ...] = ()


def compose(
    incident: Incident,
    playbook: Playbook,
    audience: str,
    word: Word,
    now: datetime,
    language: Language = "en",
) -> Message:
    """The message `word` for `audience`.

    Args:
        incident: as the log has it.
        playbook: with the audience, or `TEAM`.
        audience: its short name.
        word: which of the three.
        now: the time in it.
        language: only patients are written to in another one than English.
    """
    group = playbook.audiences.get(audience)
    wording: Wording = "technical" if group is None else group.wording
    if wording == "plain":
        sentences = PATIENTS[language][word][reach_of(incident)]
        return Message(audience, word, language, PATIENT_SUBJECTS[language][word], "\n".join(sentences))
    page = Page(incident, playbook, wording, now)
    lines = {Word.FIRST: _initial, Word.UPDATE: _update, Word.RESOLUTION: _resolution}[word](page)
    body = "\n".join([*lines, *_for_audience(page, word)])
    subject = one_line(f"[{incident.severity}] {SUBJECTS[word]}", MOST_SUBJECT)
    missing, withheld = tuple(dict.fromkeys(page.missing)), tuple(dict.fromkeys(page.withheld))
    return Message(audience, word, "en", subject, body, missing, withheld)


def ours(playbook: Playbook) -> frozenset[str]:
    """Numbers, addresses and names that may stand in a message: the team's and the contact lists'."""
    people = (value for person in playbook.people for value in (person.phone, person.email))
    lists = (*playbook.contacts.emergency.values(), *playbook.contacts.vendors.values())
    return frozenset((*people, *(entry.reach for entries in lists for entry in entries)))


def reach_of(incident: Incident) -> Reach:
    """How much of the hospital it reaches, for patients' words."""
    if incident.severity == "SEV-0":
        return "all"
    return "slow" if incident.severity == "SEV-3" else "some"


@dataclass(slots=True)
class Page:
    """A message being written: what is known, as it may be shown, and what of it is missing or withheld."""

    incident: Incident
    playbook: Playbook
    wording: Wording
    now: datetime
    missing: list[str] = field(default_factory=list)
    withheld: list[Withheld] = field(default_factory=list)

    def fact(self, name: str, otherwise: str | None = None) -> str:
        """What somebody wrote in the field, in this round, or what is known without."""
        told = self.incident.facts.get(name)
        if told is not None and told.at >= self.incident.round.detected_at:
            return self.safe(told.text, name)
        if otherwise is not None:
            return otherwise
        self.missing.append(name)
        return MISSING

    def safe(self, text: str, where: str, *, foreign: bool = False) -> str:
        """A text as it may stand there."""
        looks_like = tells_of_a_patient(text, ours(self.playbook))
        if looks_like is not None:
            self.withheld.append(Withheld(where, looks_like))
            return WITHHELD
        return shown(text) if foreign else written(text)

    @property
    def services(self) -> str:
        """What is affected, by title."""
        known = self.playbook.services
        wide = {"lost", "unwritable", "damaged"}
        signals = self.incident.signals.values()
        # Once all is over, what had been.
        going = [each for each in signals if each.ended_at is None] or list(signals)
        if self.incident.severity == "SEV-0" or any(each.effect in wide for each in going):
            return f"all: {', '.join(service.title for service in known.values())}"
        named = [known[name].title for name in self.incident.services if name in known]
        return ", ".join(named) if named else self.fact("services")

    @property
    def impact(self) -> str:
        """What somebody wrote, else why the severity is what it is."""
        reasons = [self.safe(reason, "reasons", foreign=True) for reason in self.incident.reasons]
        return self.fact("impact", "; ".join(reasons) if reasons else None)

    @property
    def severity(self) -> str:
        """Name and meaning."""
        found = self.playbook.severities[self.incident.severity]
        return f"{self.incident.severity} ({found.title}): {found.meaning}"

    @property
    def next_word(self) -> str:
        """When the next update comes."""
        if not self.incident.active:
            return "none: it is resolved"
        # The one that is written now is the last word.
        return self.time(self.now + self.playbook.cadence.update)

    def time(self, at: datetime) -> str:
        """On the hospital's clocks, and in UTC."""
        local = at.astimezone(ZoneInfo(self.playbook.on_call.time_zone))
        return f"{local:%Y-%m-%d %H:%M %Z} ({at:%H:%M} UTC)"

    def contact(self, role: str) -> str:
        """Who has the role, with number and address."""
        name = next(iter(self.incident.roles.get(role, ())), None)
        for person in self.playbook.people:
            if person.name == name:
                return f"{person.name}, {person.phone}, {person.email}"
        self.missing.append(role)
        return MISSING

    @property
    def duration(self) -> str:
        """From detection until it was resolved, or until now."""
        last = self.incident.round
        lasted = (last.resolved_at or self.now) - last.detected_at
        return format_duration(timedelta(seconds=max(0, round(lasted.total_seconds()))))


def _initial(page: Page) -> Iterator[str]:
    incident = page.incident
    yield "INCIDENT DETAILS:"
    yield f"- Incident: {incident.name}, {page.safe(incident.title, 'title', foreign=True)}"
    yield f"- Time: {page.time(incident.round.detected_at)}"
    yield f"- Severity: {page.severity}"
    yield f"- Impact: {page.impact}"
    yield f"- Services Affected: {page.services}"
    yield f"- Current Status: {STATUS_WORDS[incident.status]}"
    yield from ("", "NEXT STEPS:")
    yield f"- {page.fact('mitigation', _under_way(incident))}"
    yield f"- ETA for next update: {page.next_word}"
    yield from ("", "CONTACT:")
    yield f"- Incident Commander: {page.contact(COMMANDER)}"
    yield f"- Technical Lead: {page.contact('technical-lead')}"


def _update(page: Page) -> Iterator[str]:
    yield "INCIDENT STATUS:"
    yield f"- Incident: {page.incident.name}, {page.safe(page.incident.title, 'title', foreign=True)}"
    yield f"- Duration: {page.duration}"
    yield f"- Severity: {page.severity}"
    yield f"- Progress: {page.fact('progress', STATUS_WORDS[page.incident.status])}"
    yield f"- Issues: {page.fact('issues')}"
    yield f"- Next Steps: {page.fact('next-steps', _under_way(page.incident))}"
    yield from ("", "IMPACT ASSESSMENT:")
    yield f"- Patients Affected: {page.fact('patients')}"
    yield f"- Services Impacted: {page.services}"
    yield f"- Workarounds: {page.fact('workarounds')}"
    yield from ("", f"NEXT UPDATE: {page.next_word}")


def _resolution(page: Page) -> Iterator[str]:
    resolved = page.incident.round.resolved_at
    if resolved is None:
        page.missing.append("resolution-time")
    yield "INCIDENT RESOLVED:"
    yield f"- Incident: {page.incident.name}, {page.safe(page.incident.title, 'title', foreign=True)}"
    yield f"- Resolution Time: {MISSING if resolved is None else page.time(resolved)}"
    yield f"- Duration: {page.duration}"
    yield f"- Root Cause: {page.fact('cause')}"
    yield f"- Resolution: {page.fact('resolution')}"
    yield from ("", "IMPACT SUMMARY:")
    yield f"- Patients Affected: {page.fact('patients')}"
    yield f"- Services Impacted: {page.services}"
    yield f"- Data Loss: {page.fact('data-loss')}"
    yield from ("", "PREVENTIVE ACTIONS:")
    yield f"- {page.fact('actions-taken')}"
    yield f"- {page.fact('improvements')}"
    yield from ("", "POST-MORTEM:")
    yield f"- Post-mortem scheduled for: {page.fact('post-mortem', _review(page, resolved))}"
    yield "- All stakeholders invited to attend"
    yield from ("", "THANK YOU:")
    yield "- Thank you for your patience and cooperation during this incident."


def _review(page: Page, resolved: datetime | None) -> str | None:
    """The first review's window, by the playbook."""
    if resolved is None:
        return None
    window = page.playbook.procedures.reviews.immediate
    return f"between {page.time(resolved + window.opens)} and {page.time(resolved + window.due)}"


def _for_audience(page: Page, word: Word) -> Iterator[str]:
    """What this audience needs beside the template."""
    if page.wording == "clinical":
        yield from ("", "AT THE BEDSIDE:")
        yield from (f"- {line}" for line in BEDSIDE[word])
        if word is not Word.RESOLUTION:
            yield from _procedures(page)
    elif page.wording == "partner":
        yield from ("", "FOR YOUR SYSTEMS:")
        yield f"- Our interface: {page.playbook.traffic.public_url}"
        if word is Word.RESOLUTION:
            yield "- Send again what was not answered since the incident began."
        else:
            yield "- Keep what cannot be delivered, and send it again when we say that it is over."
    elif page.wording == "technical":
        yield from _alerts(page)


def _procedures(page: Page) -> Iterator[str]:
    for service in page.playbook.services.values():
        if service.downtime and service.title in page.services:
            yield f"- {service.title}: {service.downtime}"


def _alerts(page: Page) -> Iterator[str]:
    going = [each for each in page.incident.signals.values() if each.ended_at is None]
    if not going:
        return
    yield from ("", f"ALERTS ({len(going)}):")
    for each in going[:_MOST_ALERTS]:
        yield f"- {page.safe(each.text or each.key, 'alerts', foreign=True)}"
    if len(going) > _MOST_ALERTS:
        yield f"- and {len(going) - _MOST_ALERTS} more: hmsdr incident show {page.incident.name}"


def _under_way(incident: Incident) -> str | None:
    """What the system itself is doing."""
    for signal in incident.signals.values():
        if signal.key.startswith("failover/") and signal.at >= incident.round.detected_at:
            return f"The hospital moves away from {', '.join(signal.regions)}: a failover is under way"
    return None
