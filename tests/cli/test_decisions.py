"""What `hmsdr run` shows of decisions: what is proposed now and how to stop it, why a run was begun, how grave it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hmsdr.cli.run import _proposed, _why
from hmsdr.control.chronicle import DECIDED, PROPOSED, VETOED, WITHDRAWN
from hmsdr.log.events import Event
from hmsdr.playbook.load import load

EAST = "us-east-1"
SERVICES = "critical-services-unavailable"


def event(seq: int, kind: str, **data: object) -> Event:
    said = {"epoch": 1, "kind": SERVICES, "veto_seconds": 120.0, **data}
    at = datetime.now(UTC) - timedelta(seconds=10)
    return Event(seq, at, 1, kind, EAST, "controller", said, "", "")


def proposal() -> Event:
    return event(1, PROPOSED, severity={"proposed": "SEV-2", "reasons": ["patient is down"]})


@pytest.mark.req("FA-1", "CL-3")
def test_what_is_proposed_is_shown_with_its_severity_and_how_to_stop_it() -> None:
    (line,) = _proposed(load("hms", environ={}, secrets=False), [proposal()], 1)
    assert line == (
        f"Proposed 10 s ago: to leave {EAST} ({SERVICES}, SEV-2), carried out after 120 s. "
        f"To stop it: `hmsdr veto {EAST} --reason TEXT --by NAME`"
    )


@pytest.mark.req("FA-1")
@pytest.mark.parametrize("kind", [WITHDRAWN, VETOED, DECIDED])
def test_what_is_over_is_not_shown(kind: str) -> None:
    playbook = load("hms", environ={}, secrets=False)
    assert _proposed(playbook, [proposal(), event(2, kind)], 1) == []
    assert _proposed(playbook, [proposal()], 2) == [], "another epoch"


@pytest.mark.req("CL-1", "CL-3")
def test_why_a_run_was_begun() -> None:
    severity = {"proposed": "SEV-1", "reasons": ["the active region us-east-1 is lost", "and more"]}
    assert _why({"kind": "region-unreachable", "severity": severity}) == [
        "  because: region-unreachable",
        "  severity proposed: SEV-1: the active region us-east-1 is lost; and more",
    ]
    assert _why({"kind": "disaster-declared", "by": "Ada", "reason": "the river rises"}) == [
        "  because: disaster-declared, declared by Ada: the river rises"
    ]
    assert _why(None) == []
