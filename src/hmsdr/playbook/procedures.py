"""When things are due: response phases, switching back, tests, reviews, action items (IR, SW, TV, PR, AP-4).

Frozen data only; the rooms that act on these figures come later than the figures.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from hmsdr.playbook.base import Duration, Section

_ALL = 100
_PAIR = re.compile(r"(\d{1,3})\s*/\s*(\d{1,3})", re.ASCII)


def _share(value: Any) -> Any:
    """The home region's share, as a number or as the source writes both: ``80/20``, the other region's first."""
    found = _PAIR.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return value
    other, home = int(found[1]), int(found[2])
    if other + home != _ALL:
        raise PydanticCustomError(
            "shares_of_all",
            "two shares that make 100 together, such as 80/20",
            {"remedy": f"They make {other + home}: {other}/{_ALL - other}, or {_ALL - home}/{home}?"},
        )
    return home


Share = Annotated[
    int,
    Field(strict=True, ge=1, le=_ALL),
    BeforeValidator(_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": _ALL},
                {"type": "string", "pattern": r"^\s*\d{1,3}\s*/\s*\d{1,3}\s*$", "examples": ["80/20"]},
            ]
        }
    ),
]


class ResponsePhases(Section):
    """Ends of the phases of the response checklist, counted from detection (IR-1, IR-2, IR-3)."""

    initial: Duration
    """End of the initial response."""
    assessment: Duration
    """End of the assessment."""
    mitigation: Duration
    """End of the mitigation phase; from here on the incident is overdue."""


class Switchback(Section):
    """How traffic goes home (SW-2, SW-3)."""

    home_shares: Annotated[tuple[Share, ...], Field(min_length=1)]
    """Share of traffic of the home region after each step, in per cent: rising, the last is 100. Or both shares: 80/20."""
    hold: Duration
    """How long latency and error rate are watched at each share before the next step, once the TTL is over."""
    patience: Duration = timedelta(minutes=30)
    """How much longer a step is held for figures, for requests to judge by, or for the split to arrive, before the run ends there."""
    requests: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """So many requests of a region within `hold` it takes to judge it."""
    split_tolerance: Annotated[int, Field(ge=1, le=50)] = 15
    """By so many points may the share that arrives differ from the one that was set."""
    error_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Largest part of requests that fail, whatever it was before."""
    error_rise: Annotated[float, Field(gt=0, lt=1)] = 0.005
    """By how much that part may be larger than before the first step."""
    latency_p50: Duration = timedelta(milliseconds=500)
    """Half of all requests are answered within this."""
    latency_p95: Duration = timedelta(seconds=1)
    """Of 100 requests 95 are."""
    latency_p99: Duration = timedelta(seconds=2)
    """Of 100 requests 99 are."""
    latency_factor: Annotated[float, Field(ge=1, le=100)] = 3.0
    """So many times as long as before the first step may any of the three become."""
    latency_floor: Duration = timedelta(milliseconds=100)
    """What is answered within this is never too slow for that."""
    saturation: Annotated[float, Field(gt=0, le=10)] = 0.9
    """Largest saturation: what `prometheus.signals.saturation` gives, 1 being all there is."""
    stable_for: Duration = timedelta(hours=1)
    """So long the present primary must have had the right to write."""
    data_equal_age: Duration = timedelta(hours=24)
    """The data of both regions were found equal, so long ago at most."""
    told_age: Duration = timedelta(hours=24)
    """The stakeholders were told, so long ago at most."""


class Testing(Section):
    """Tests by how often they are due (TV-1, TV-2, TV-3)."""

    weekly: tuple[str, ...]
    """Names of the tests due every week."""
    monthly: tuple[str, ...]
    """Names of the tests due every month."""
    quarterly: tuple[str, ...]
    """Names of the tests due every quarter."""


class ReviewWindow(Section):
    """When a review opens and is due, counted from the resolution."""

    opens: Duration
    """Earliest."""
    due: Duration
    """Latest."""


class Reviews(Section):
    """The three reviews after an incident (PR-1)."""

    immediate: ReviewWindow
    """Gathering data, first analysis, timeline."""
    formal: ReviewWindow
    """Root cause, action items, with all stakeholders."""
    follow_up: ReviewWindow
    """Whether the action items were done and helped."""


class ActionHorizons(Section):
    """Ends of the horizons of action items; what is later is long-term (PR-4)."""

    immediate: Duration
    """End of the immediate horizon."""
    medium_term: Duration
    """End of the medium term."""


class Procedures(Section):
    """Figures of the procedures around a failover."""

    response: ResponsePhases
    """Phases of the response checklist."""
    switchback: Switchback
    """Going home by DNS weight."""
    testing: Testing
    """Regular tests."""
    reviews: Reviews
    """Post-incident reviews."""
    actions: ActionHorizons
    """Horizons of action items."""
    playbook_review: Duration
    """How often the playbook itself is reviewed and signed off (AP-4)."""
