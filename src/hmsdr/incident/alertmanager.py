"""Alerts of Alertmanager's webhook as events of the log. What comes in is checked, cut and never obeyed; what is known already is not said again.

Labels that are read: ``region``, ``service``, ``severity``; ``hmsdr_effect`` and ``hmsdr_severity`` say more exactly what it means.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hmsdr.decide.incident import EFFECTS, SEVERITIES
from hmsdr.decide.incidents import Book
from hmsdr.decide.signals import MOST_TEXT, RECEIVED
from hmsdr.errors import RefusedError
from hmsdr.log.events import NewEvent

MOST_BYTES = 1024 * 1024
MOST_ALERTS = 2000
_IN_AN_EVENT = 500
_DOING = "reading alerts"
_GRAVE = frozenset({"critical", "page", "emergency"})


def read(body: bytes) -> list[dict[str, Any]]:
    """The alerts of one request.

    Raises:
        RefusedError: it is none of Alertmanager's, or has too many.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(_DOING, "it is no JSON", "Post what Alertmanager's webhook posts") from None
    alerts = payload.get("alerts") if isinstance(payload, Mapping) else None
    if not isinstance(alerts, list):
        raise RefusedError(_DOING, "there is no list `alerts`", "Post what Alertmanager's webhook posts")
    if len(alerts) > MOST_ALERTS:
        remedy = "Set max_alerts in Alertmanager's webhook_config"
        raise RefusedError(_DOING, f"{len(alerts)} alerts, at most {MOST_ALERTS}", remedy)
    return [_alert(each, number) for number, each in enumerate(alerts)]


def news(book: Book, alerts: Sequence[Mapping[str, Any]], sender: str) -> list[NewEvent]:
    """What of it the log does not say yet: of a request that comes again, nothing."""
    going = {key for key, each in book.pending.items() if each.ended_at is None}
    going |= {
        key
        for incident in book.incidents.values()
        if incident.active
        for key, each in incident.signals.items()
        if each.ended_at is None
    }
    fresh = [each for each in alerts if (each["key"] in going) == each["ended"]]
    pages = [fresh[start : start + _IN_AN_EVENT] for start in range(0, len(fresh), _IN_AN_EVENT)]
    return [NewEvent(RECEIVED, "alertmanager", sender, {"alerts": page}) for page in pages]


def _alert(raw: Any, number: int) -> dict[str, Any]:
    labels = raw.get("labels") if isinstance(raw, Mapping) else None
    if not isinstance(labels, Mapping) or not all(isinstance(each, str) for each in labels.values()):
        raise RefusedError(_DOING, f"alert {number} has no labels", "Post what Alertmanager's webhook posts")
    if raw.get("status") not in ("firing", "resolved"):
        raise RefusedError(
            _DOING, f"alert {number} is neither firing nor resolved", "Post what Alertmanager posts"
        )
    told = raw.get("annotations")
    notes: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    text = (
        notes.get("summary")
        or notes.get("description")
        or labels.get("alertname")
        or "an alert without a name"
    )
    service, effect, severity = (
        labels.get("service"),
        labels.get("hmsdr_effect"),
        labels.get("hmsdr_severity"),
    )
    down = service is not None and labels.get("severity") in _GRAVE
    return {
        "key": f"alertmanager/{_fingerprint(raw, labels)}",
        "text": str(text)[:MOST_TEXT],
        "ended": raw["status"] == "resolved",
        "effect": effect if effect in EFFECTS else "down" if down else "degraded",
        "regions": [labels["region"][:MOST_TEXT]] if "region" in labels else [],
        "services": [service[:MOST_TEXT]] if service else [],
        "severity": severity if severity in SEVERITIES else None,
    }


def _fingerprint(raw: Mapping[str, Any], labels: Mapping[str, Any]) -> str:
    given = raw.get("fingerprint")
    if isinstance(given, str) and given.isalnum() and len(given) <= 64:  # noqa: PLR2004 - a hash in hex at most
        return given
    return hashlib.sha256(json.dumps(dict(labels), sort_keys=True).encode()).hexdigest()[:16]
