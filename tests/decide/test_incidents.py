"""Incidents as a fold: opened, joined, overruled, answered, resolved, reopened; the same events give the same book, however read."""

from __future__ import annotations

import copy
from dataclasses import asdict
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casebook import BOOK, START, Log, declared
from hmsdr.decide.incident import MOVES, Status
from hmsdr.decide.incidents import Book, fold
from hmsdr.decide.joining import MOST_SIGNALS, REOPEN_WITHIN, opening, situation
from hmsdr.decide.severity import Situation

EAST, WEST = "us-east-1", "us-west-2"


@pytest.mark.req("CL-1", "CL-3", "CO-1")
def test_a_controllers_alert_opens_an_incident_with_severity_reasons_and_roles() -> None:
    log = declared()
    incident = log.incident()
    assert (incident.status, incident.severity) == (Status.DECLARED, "SEV-1")
    assert incident.reasons == ("the database of us-east-1, which all services use, is damaged",)
    assert incident.title == "The database of us-east-1 shows damage"
    assert incident.round.detected_at == START
    assert incident.roles["incident-commander"][0] in ("Ada Quill", "Edda Thorne")
    assert incident.roles["security-lead"] == ("Dov Larkspur",)
    assert not log.book.pending


def test_damage_of_the_region_that_serves_nobody_is_milder() -> None:
    log = Log()
    log.began(f"damage/{WEST}")
    log.route(EAST)
    assert log.incident().severity == "SEV-3"
    other = Log()
    other.began(f"damage/{WEST}")
    other.route(WEST)
    assert other.incident().severity == "SEV-1"


def test_a_decided_failover_is_an_incident_and_its_run_is_the_same_one() -> None:
    log = Log()
    said = {"proposed": "SEV-1", "reasons": ["the active region us-east-1 is lost"]}
    log.add("failover.decided", EAST, kind="region-unreachable", severity=said, epoch=3)
    plan = {"runbook": "regional-failover", "mode": "unplanned", "parameters": {"from": EAST, "to": WEST}}
    log.add("run.started", "run-1", plan=plan)
    (entry,) = log.route(WEST)
    assert entry.kind == "incident.opened"
    incident = log.incident()
    assert incident.severity == "SEV-1"
    assert "the active region us-east-1 is lost" in incident.reasons
    assert list(incident.signals) == [f"failover/{EAST}"]


@pytest.mark.parametrize("change", [{"mode": "planned"}, {"runbook": "cache-failover"}, {"parameters": {}}])
def test_planned_work_is_no_incident(change: dict[str, object]) -> None:
    log = Log()
    plan = {"runbook": "regional-failover", "mode": "unplanned", "parameters": {"from": EAST}}
    log.add("run.started", "run-1", plan=plan | change)
    assert log.route() == []


def test_what_else_is_seen_joins_and_raises_the_severity() -> None:
    log = Log()
    log.began(f"backup-stale/{EAST}", "The newest backup is too old")
    log.route(EAST)
    assert log.incident().severity == "SEV-3"
    log.later(minutes=3).began("right-to-write", "No region may write")
    log.began(f"backup-stale/{EAST}")
    (entry,) = log.route(EAST)
    assert (entry.kind, entry.subject) == ("incident.joined", "INC-1")
    incident = log.incident()
    assert incident.severity == "SEV-1"
    assert list(incident.signals) == [f"backup-stale/{EAST}", "right-to-write"]
    assert log.route(EAST) == []


def test_the_incident_that_shares_a_region_is_joined_before_a_newer_one() -> None:
    log = declared()
    seen = Situation(regions=2, services=5, degraded=("the printers are slow",))
    log.write([opening(log.book, BOOK, log.now, title="Printers", seen=seen)], "Ada Quill")
    log.began(f"standby-apart/{EAST}")
    log.began("site-silent/us-east-2")
    entries = {entry.subject: entry.data["signals"] for entry in log.route(EAST)}
    assert entries == {"INC-1": [f"standby-apart/{EAST}"], "INC-2": ["site-silent/us-east-2"]}


@pytest.mark.req("CL-3")
def test_a_persons_word_for_the_severity_stands_with_its_reason_and_the_proposal_beside_it() -> None:
    log = declared()
    log.add("incident.severity", "INC-1", "Ada Quill", severity="SEV-2", reason="only the archive")
    log.began("right-to-write")
    log.route(EAST)
    incident = log.incident()
    assert (incident.severity, incident.proposed) == ("SEV-2", "SEV-1")
    assert incident.overruled is not None
    assert (incident.overruled.by, incident.overruled.text) == ("Ada Quill", "only the archive")


def test_it_lives_and_comes_back() -> None:
    log = declared()
    log.later(minutes=2).add("incident.acknowledged", "INC-1", "Edda Thorne")
    assert log.incident().status is Status.ACKNOWLEDGED
    for status in ("mitigating", "monitoring", "resolved"):
        log.later(minutes=10).add("incident.status", "INC-1", "Edda Thorne", status=status)
    log.ended(f"damage/{EAST}")
    incident = log.incident()
    assert incident.status is Status.RESOLVED
    assert incident.round.acknowledged_by == "Edda Thorne"
    assert incident.round.resolved_at == log.now
    log.later(hours=3).began(f"damage/{EAST}")
    (entry,) = log.route(EAST)
    assert entry.kind == "incident.reopened"
    incident = log.incident()
    assert (incident.status, len(incident.rounds)) == (Status.DECLARED, 2)
    assert incident.round.detected_at == log.now
    assert incident.round.acknowledged_at is None
    assert incident.signals[f"damage/{EAST}"].count == 2


def test_a_word_that_made_it_milder_does_not_outlive_its_round() -> None:
    log = declared()
    log.add("incident.severity", "INC-1", "Ada Quill", severity="SEV-3", reason="a test system")
    log.add("incident.status", "INC-1", "Ada Quill", status="resolved")
    log.ended(f"damage/{EAST}")
    log.later(hours=1).began(f"damage/{EAST}")
    log.route(EAST)
    assert (log.incident().severity, log.incident().overruled) == ("SEV-1", None)


def test_what_comes_back_much_later_is_a_new_incident() -> None:
    log = declared()
    log.add("incident.status", "INC-1", "Ada Quill", status="resolved")
    log.ended(f"damage/{EAST}")
    log.now += REOPEN_WITHIN + timedelta(seconds=1)
    log.began(f"damage/{EAST}")
    log.route(EAST)
    assert list(log.book.incidents) == ["INC-1", "INC-2"]


def test_a_flood_ends_in_one_incident_and_no_alert_is_lost() -> None:
    log = Log()
    for page in range(50):
        alerts = [
            {"key": f"am/{page}-{each}", "text": "slow", "services": ["patient"]} for each in range(100)
        ]
        log.add("alerts.received", "alertmanager", "alertmanager", alerts=alerts)
    entries = log.route()
    assert len(entries) == 5000 // MOST_SIGNALS
    assert list(log.book.incidents) == ["INC-1"]
    assert len(log.incident().signals) == 5000
    assert log.route() == []


def test_an_alert_that_was_over_before_anybody_looked_is_still_on_the_record() -> None:
    log = Log()
    log.began(f"damage/{EAST}")
    log.later(minutes=1).ended(f"damage/{EAST}")
    log.route(EAST)
    assert log.incident().reasons == ("it was over before anybody looked",)
    assert log.incident().signals[f"damage/{EAST}"].ended_at == log.now


def test_more_services_down_are_a_graver_situation() -> None:
    log = Log()
    alerts = [
        {"key": f"down/{name}", "text": "down", "effect": "down", "services": [name]}
        for name in ("patient", "unknown")
    ]
    log.add("alerts.received", "alertmanager", "alertmanager", alerts=alerts)
    assert situation(BOOK, log.book.pending.values()).down == ("patient",)
    log.route()
    assert log.incident().severity == "SEV-2"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("incident.status", {"status": "reviewed"}),
        ("incident.status", {"status": "nonsense"}),
        ("incident.severity", {"severity": "SEV-9"}),
        ("incident.assigned", {"role": "cook", "person": "Ada Quill"}),
        ("incident.said", {"word": "resolution"}),
        ("incident.called", {"series": "response/1", "rung": 0}),
        ("incident.nonsense", {}),
    ],
)
def test_an_event_that_no_command_writes_changes_nothing_and_is_counted(kind: str, data: dict) -> None:
    log = declared()
    before = asdict(log.incident())
    log.add(kind, "INC-1", "somebody", **data)
    after = asdict(log.incident())
    assert after.pop("passed_over") == before.pop("passed_over") + 1
    for moved in ("seq", "events"):
        assert after.pop(moved) == before.pop(moved) + 1
    assert after == before


def test_every_status_can_end_and_no_move_leads_nowhere() -> None:
    assert set(MOVES) == set(Status)
    for status in Status:
        seen, todo = set(), [status]
        while todo:
            each = todo.pop()
            if each not in seen:
                seen.add(each)
                todo.extend(MOVES[each])
        assert Status.REVIEWED in seen


keys = st.sampled_from([f"damage/{EAST}", f"damage/{WEST}", "right-to-write", f"backup-stale/{EAST}"])
steps = st.one_of(
    st.tuples(st.just("began"), keys),
    st.tuples(st.just("ended"), keys),
    st.tuples(st.just("route"), st.just("")),
    st.tuples(st.just("later"), st.sampled_from([1, 600, 90000])),
    st.tuples(st.just("ack"), st.sampled_from(["Ada Quill", "Edda Thorne"])),
    st.tuples(st.just("status"), st.sampled_from([str(status) for status in Status])),
    st.tuples(st.just("severity"), st.sampled_from(["SEV-0", "SEV-3"])),
    st.tuples(st.just("said"), st.sampled_from(["first", "update", "resolution"])),
    st.tuples(st.just("noted"), st.sampled_from(["impact", ""])),
)


def written(script: list[tuple[str, object]]) -> Log:
    log = Log()
    for kind, value in script:
        name = next(iter(log.book.incidents), "INC-1")
        if kind == "began":
            log.began(str(value))
        elif kind == "ended":
            log.ended(str(value))
        elif kind == "route":
            log.route(EAST)
        elif kind == "later":
            log.later(seconds=float(str(value)))
        elif kind == "ack":
            log.add("incident.acknowledged", name, str(value))
        else:
            field = {"status": "status", "severity": "severity", "said": "word", "noted": "field"}[kind]
            log.add(f"incident.{kind}", name, "Ada Quill", **{field: value, "text": "x", "reason": "x"})
    return log


@settings(deadline=None)
@given(script=st.lists(steps, max_size=40), cuts=st.lists(st.integers(0, 60), max_size=4))
def test_however_the_log_is_cut_the_book_is_the_same_and_earlier_books_stay_as_they_were(script, cuts):
    events = written(script).events
    whole = fold(Book(), events)
    book, kept = Book(), []
    for cut in [*sorted(cuts), len(events)]:
        # Also what was read already comes again.
        book = fold(book, events[:cut])
        kept.append((book, copy.deepcopy(book)))
    assert book == whole
    assert all(now == then for now, then in kept)


@settings(deadline=None)
@given(script=st.lists(steps, max_size=40))
def test_once_routed_no_signal_is_without_an_incident_and_nothing_is_routed_twice(script):
    log = written(script)
    seen = set(log.book.pending)
    log.route(EAST)
    assert not log.book.pending
    assert seen <= {key for incident in log.book.incidents.values() for key in incident.signals}
    assert log.route(EAST) == []
    assert all(incident.passed_over <= incident.events for incident in log.book.incidents.values())
