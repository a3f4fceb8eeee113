"""What in the log gives reason for an incident, as signals: controllers' alerts and decisions, monitoring's alerts, a run. Pure.

The controllers' alerts are ``alert.began`` and ``alert.ended``, about the key of a condition (``damage/us-east-1``), with a text and a
remedy. Texts come from outside: they are cut, and never obeyed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol

from hmsdr.decide.incident import EFFECTS, SEVERITIES, Effect, Signal
from hmsdr.decide.leading import Cause

ALERT_BEGAN, ALERT_ENDED = "alert.began", "alert.ended"
RECEIVED = "alerts.received"
"""Alerts of monitoring that came by webhook, several in one event."""
DECIDED, DISASTER, RUN = "failover.decided", "disaster.declared", "run.started"
KINDS = frozenset({ALERT_BEGAN, ALERT_ENDED, RECEIVED, DECIDED, DISASTER, RUN})
"""Events of any other kind begin and end no signal."""
MOST_TEXT = 600
_MOST_NAMES = 50

_BY_CONDITION: Mapping[str, Effect] = {"damage": "damaged", "right-to-write": "unwritable"}
_BY_CAUSE: Mapping[str, Effect] = {
    Cause.REGION: "lost",
    Cause.SERVICES: "degraded",
    Cause.CORRUPTION: "damaged",
}


class Recorded(Protocol):
    """An event, as the log has it (`hmsdr.log.events.Event`)."""

    @property
    def seq(self) -> int:
        """Its place in the log."""
        ...

    @property
    def at(self) -> datetime:
        """When it was written (UTC)."""
        ...

    @property
    def kind(self) -> str:
        """What happened."""
        ...

    @property
    def subject(self) -> str:
        """What it is about."""
        ...

    @property
    def actor(self) -> str:
        """Who did it."""
        ...

    @property
    def data(self) -> Mapping[str, Any]:
        """The rest."""
        ...


def began(event: Recorded) -> Iterator[Signal]:
    """What begins with `event`; nothing for most events."""
    if event.kind == ALERT_BEGAN:
        yield _alert(event)
    elif event.kind == DECIDED:
        yield _decided(event)
    elif event.kind == DISASTER:
        text = f"{event.actor} declares {event.subject} lost: {event.data.get('reason', '')}"
        yield _signal(f"disaster/{event.subject}", text, event, effect="lost", regions=(event.subject,))
    elif event.kind == RUN:
        yield from _run(event)
    elif event.kind == RECEIVED:
        yield from (each for raw in _list(event.data, "alerts") if (each := received(raw, event)) is not None)


def ended(event: Recorded) -> Iterator[str]:
    """The keys of what ends with `event`."""
    if event.kind == ALERT_ENDED:
        yield event.subject
    elif event.kind == RECEIVED:
        yield from (
            str(raw["key"])
            for raw in _list(event.data, "alerts")
            if isinstance(raw, Mapping) and raw.get("ended") and isinstance(raw.get("key"), str)
        )


def _alert(event: Recorded) -> Signal:
    name, _, about = event.subject.partition("/")
    region, _, cause = about.partition("/")
    effect = _BY_CONDITION.get(name) or _BY_CAUSE.get(cause, "degraded")
    regions = (region,) if region else ()
    return _signal(event.subject, str(event.data.get("text", "")), event, effect=effect, regions=regions)


def _decided(event: Recorded) -> Signal:
    cause = str(event.data.get("kind", ""))
    said = event.data.get("severity")
    severity = said.get("proposed") if isinstance(said, Mapping) else None
    why = said.get("reasons", ()) if isinstance(said, Mapping) else ()
    reasons = "; ".join(map(str, why)) or cause or "the controllers decided so"
    return Signal(
        key=f"failover/{event.subject}",
        text=f"A failover away from {event.subject} was decided: {reasons}"[:MOST_TEXT],
        at=event.at,
        source=event.actor,
        effect=_BY_CAUSE.get(cause, "degraded"),
        regions=(event.subject,),
        severity=severity if severity in SEVERITIES else None,
    )


def _run(event: Recorded) -> Iterator[Signal]:
    """An unplanned failover is an incident, whoever began it; planned work is none."""
    plan = event.data.get("plan")
    if not isinstance(plan, Mapping) or plan.get("mode") != "unplanned":
        return
    parameters = plan.get("parameters")
    region = str(parameters.get("from", "")) if isinstance(parameters, Mapping) else ""
    if plan.get("runbook") != "regional-failover" or not region:
        return
    text = f"{event.actor} began an unplanned failover away from {region} (run {event.subject})"
    yield _signal(f"failover/{region}", text, event, effect="lost", regions=(region,))


def received(raw: Any, event: Recorded) -> Signal | None:
    """The signal that an event carries in itself; None when it is none, or says that one ended."""
    if not isinstance(raw, Mapping) or raw.get("ended") or not isinstance(raw.get("key"), str):
        return None
    effect, severity = raw.get("effect"), raw.get("severity")
    return Signal(
        key=str(raw["key"])[:MOST_TEXT],
        text=str(raw.get("text", ""))[:MOST_TEXT],
        at=event.at,
        source=event.actor,
        effect=effect if effect in EFFECTS else "degraded",
        regions=_names(raw, "regions"),
        services=_names(raw, "services"),
        severity=severity if severity in SEVERITIES else None,
    )


def _signal(key: str, text: str, event: Recorded, *, effect: Effect, regions: tuple[str, ...] = ()) -> Signal:
    return Signal(key[:MOST_TEXT], text[:MOST_TEXT], event.at, event.actor, effect, regions)


def _names(raw: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(str(name)[:MOST_TEXT] for name in _list(raw, key)[:_MOST_NAMES])


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    found = data.get(key)
    return list(found) if isinstance(found, list | tuple) else []
