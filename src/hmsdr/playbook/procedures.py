"""When things are due: response phases, switching back, tests, reviews, action items (IR, SW, TV, PR, AP-4).

Frozen data only; the rooms that act on these figures come later than the figures.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hmsdr.playbook.base import Duration, Section


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

    home_shares: Annotated[tuple[Annotated[int, Field(strict=True, ge=1, le=100)], ...], Field(min_length=1)]
    """Share of traffic of the home region after each step, in per cent: rising, the last is 100."""
    hold: Duration
    """How long latency and error rate are watched at each share before the next step."""


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
