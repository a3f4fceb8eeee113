"""To which incident a signal belongs: an open one that it joins, one that it reopens, or a new one (CL-3). Pure.

At three in the morning one incident is better than five: while one goes on, whatever is seen joins it, the one that shares a region or
a service before any other. Who knows better declares another one apart. What is proposed as severity follows from all its signals.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hmsdr.decide.incident import SEVERITIES, Incident, Signal
from hmsdr.decide.incidents import JOINED, OPENED, REOPENED, Book
from hmsdr.decide.oncall import assigned
from hmsdr.decide.severity import Proposal, Situation, propose
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import SeverityName

MOST_SIGNALS = 500
"""In one event: a flood is several of them."""
REOPEN_WITHIN = timedelta(hours=24)
"""After resolving; what comes back later is a new incident."""
_MOST_REASONS = 12
_LEAVING = ("failover/", "disaster/", "failover-proposed/", "failover-held/")


@dataclass(frozen=True, slots=True)
class Entry:
    """An event that is to be written."""

    kind: str
    subject: str
    data: Mapping[str, Any] = field(default_factory=dict)


def route(book: Book, playbook: Playbook, now: datetime, active: str | None = None) -> list[Entry]:
    """What is to be written so that no signal is without its incident; nothing when none is.

    Each signal is named once. Applied to the log and folded, the book has no signal pending.

    Args:
        book: with the signals that are pending.
        playbook: the hospital's.
        now: whose turn it is; what was resolved long ago is not reopened.
        active: the region with the right to write, when it is known.
    """
    to: dict[str, list[Signal]] = {}
    fresh: list[Signal] = []
    for signal in book.pending.values():
        found = _incident_of(book, signal, now)
        if found is None:
            fresh.append(signal)
        else:
            to.setdefault(found.name, []).append(signal)
    if fresh and (goes_on := _first(book, (name for name in to if not book.incidents[name].active))):
        # What came back reopens one: the rest joins that, instead of a second one beside it.
        to[goes_on].extend(fresh)
        fresh = []
    entries = [
        entry for name, signals in to.items() for entry in _add(book, playbook, name, signals, now, active)
    ]
    if fresh:
        entries += _open(book, playbook, fresh, now, active)
    return entries


def opening(
    book: Book,
    playbook: Playbook,
    now: datetime,
    *,
    title: str,
    signals: Collection[Signal] = (),
    seen: Situation | None = None,
    active: str | None = None,
    severity: SeverityName | None = None,
    reason: str = "",
) -> Entry:
    """The event that opens an incident.

    Args:
        book: it gives the number.
        playbook: its roles and schedule.
        now: whose turn it is.
        title: in a few words.
        signals: pending ones that it takes with it.
        seen: what the person who declares it sees.
        active: the region with the right to write, when it is known.
        severity: the person's own word for it; None means what is proposed.
        reason: why, when it is not what is proposed.
    """
    proposal = _proposal(playbook, signals, active, seen)
    found = severity or proposal.severity
    data: dict[str, Any] = {
        "title": title,
        "severity": found,
        "proposed": proposal.severity,
        "reasons": list(proposal.reasons),
        "roles": {role: list(chain) for role, chain in assigned(playbook, now).items()},
        "signals": [signal.key for signal in signals],
        "seen": [] if seen is None else observed(seen),
    }
    if severity is not None:
        data["overruled"] = reason or "declared so"
    return Entry(OPENED, f"INC-{len(book.incidents) + 1}", data)


def observed(seen: Situation) -> list[dict[str, Any]]:
    """What a person sees, as an event carries it: signals that end with the incident."""
    found: list[dict[str, Any]] = []
    for effect, names, words in (
        ("lost", seen.lost, "cannot be reached"),
        ("damaged", seen.damaged, "has a damaged database"),
    ):
        found += [
            {"key": f"person/{effect}/{name}", "text": f"{name} {words}", "effect": effect, "regions": [name]}
            for name in names
        ]
    found += [
        {"key": f"person/down/{name}", "text": f"{name} is down", "effect": "down", "services": [name]}
        for name in seen.down
    ]
    return found + [{"key": f"person/slow/{text}", "text": text} for text in seen.degraded]


def situation(playbook: Playbook, signals: Iterable[Signal], active: str | None = None) -> Situation:
    """What the signals say, of those that have not ended; `active` is the region that serves."""
    going = [signal for signal in signals if signal.ended_at is None]

    def regions(effect: str) -> tuple[str, ...]:
        named = {name for signal in going if signal.effect == effect for name in signal.regions}
        return tuple(name for name in playbook.regions if name in named)

    down = {name for signal in going if signal.effect == "down" for name in signal.services}
    return Situation(
        regions=len(playbook.regions),
        lost=regions("lost"),
        active=_left(going) or active or playbook.home_region,
        services=len(playbook.services),
        down=tuple(name for name in playbook.services if name in down),
        damaged=regions("damaged"),
        unwritable=any(signal.effect == "unwritable" for signal in going),
        degraded=tuple(
            dict.fromkeys(signal.text or signal.key for signal in going if signal.effect == "degraded")
        )[:_MOST_REASONS],
    )


def _left(going: Iterable[Signal]) -> str | None:
    """The region that a failover leaves, which served until then."""
    leaving = (signal for signal in going if signal.key.startswith(_LEAVING))
    return next((signal.regions[0] for signal in leaving if signal.regions), None)


def _proposal(
    playbook: Playbook, signals: Iterable[Signal], active: str | None, seen: Situation | None = None
) -> Proposal:
    """The gravest that anything gives reason for."""
    kept = list(signals)
    found = [
        each for each in (propose(seen) if seen else None, propose(situation(playbook, kept, active))) if each
    ]
    for severity in SEVERITIES:
        said = [signal.text for signal in kept if signal.severity == severity and signal.ended_at is None]
        if said:
            found.append(Proposal(severity, tuple(dict.fromkeys(said))[:_MOST_REASONS]))
            break
    if not found:
        over = "it was over before anybody looked" if kept else "nothing that is seen says how grave it is"
        return Proposal("SEV-3", (over,))
    gravest = min((each.severity for each in found), key=SEVERITIES.index)
    reasons = [reason for each in found if each.severity == gravest for reason in each.reasons]
    return Proposal(gravest, tuple(dict.fromkeys(reasons))[:_MOST_REASONS])


def _incident_of(book: Book, signal: Signal, now: datetime) -> Incident | None:
    """The one that goes on and shares most with it, the newest of these; else the newest that it had been in."""
    active = book.active()
    if active:
        return max(active, key=lambda each: (_shared(each, signal), each.opened_seq))
    before = [
        each
        for each in book.incidents.values()
        if signal.key in each.signals
        and each.round.resolved_at is not None
        and now - each.round.resolved_at <= REOPEN_WITHIN
    ]
    return max(before, key=lambda each: each.opened_seq, default=None)


def _shared(incident: Incident, signal: Signal) -> int:
    if signal.key in incident.signals:
        return 1000
    return len({*incident.regions} & {*signal.regions}) + len({*incident.services} & {*signal.services})


def _first(book: Book, names: Iterable[str]) -> str | None:
    """The newest of these."""
    return max(names, key=lambda name: book.incidents[name].opened_seq, default=None)


def _open(
    book: Book, playbook: Playbook, signals: list[Signal], now: datetime, active: str | None
) -> list[Entry]:
    """One incident for all of them."""
    first, rest = signals[:MOST_SIGNALS], signals[MOST_SIGNALS:]
    entry = opening(book, playbook, now, title=_title(signals), signals=first)
    proposal = _proposal(playbook, signals, active)
    severity = {"severity": proposal.severity, "proposed": proposal.severity}
    data = {**entry.data, **severity, "reasons": list(proposal.reasons)}
    return [Entry(OPENED, entry.subject, data), *_joins(entry.subject, rest, {})]


def _title(signals: list[Signal]) -> str:
    """The gravest signal's own words, and how many are with it."""
    gravest = min(
        signals, key=lambda each: SEVERITIES.index(each.severity) if each.severity else len(SEVERITIES)
    )
    more = f" (and {len(signals) - 1} more)" if len(signals) > 1 else ""
    words = " ".join((gravest.text or gravest.key).split())
    return f"{words[:160]}{more}"


def _add(
    book: Book, playbook: Playbook, name: str, signals: list[Signal], now: datetime, active: str | None
) -> Iterable[Entry]:
    """To one that goes on, or that is reopened."""
    incident = book.incidents[name]
    together = {**incident.signals, **{each.key: each for each in signals}}
    proposal = _proposal(playbook, together.values(), active)
    proposed = {"proposed": proposal.severity, "reasons": list(proposal.reasons)}
    if incident.active:
        return _joins(name, signals, proposed)
    first, rest = signals[:MOST_SIGNALS], signals[MOST_SIGNALS:]
    data = {
        "reason": _title(first),
        "roles": {role: list(chain) for role, chain in assigned(playbook, now).items()},
        "signals": [each.key for each in first],
        **proposed,
    }
    return [Entry(REOPENED, name, data), *_joins(name, rest, {})]


def _joins(name: str, signals: list[Signal], proposed: Mapping[str, Any]) -> list[Entry]:
    pages = [signals[start : start + MOST_SIGNALS] for start in range(0, len(signals), MOST_SIGNALS)]
    return [Entry(JOINED, name, {"signals": [each.key for each in page], **proposed}) for page in pages]
