"""The response checklist: ticked by what is on the record or by a person, owned, timed, overdue when it is late."""

from __future__ import annotations

from datetime import timedelta

import pytest

from casebook import BOOK, START, Log, declared
from hmsdr.decide.oncall import COMMANDER
from hmsdr.decide.response import ITEMS, Line, checklist


def lines(log: Log) -> dict[str, Line]:
    return {line.key: line for line in checklist(log.incident(), BOOK, log.now)}


def done(log: Log) -> list[str]:
    return [key for key, line in lines(log).items() if line.seen is not None]


@pytest.mark.req("IR-1", "IR-2", "IR-3")
def test_sixteen_items_in_three_phases_each_with_an_owner_and_a_time() -> None:
    found = checklist(declared().incident(), BOOK, START)
    assert [line.phase for line in found] == ["initial"] * 6 + ["assessment"] * 5 + ["mitigation"] * 5
    minutes = {line.phase: (line.due_at - START) / timedelta(minutes=1) for line in found}
    assert minutes == {"initial": 5, "assessment": 15, "mitigation": 60}
    people = {person.name for person in BOOK.people}
    assert all(line.owner in people for line in found)
    assert list(ITEMS) == [line.key for line in found]


@pytest.mark.req("IR-4")
@pytest.mark.parametrize(
    ("kind", "data", "item", "evidence"),
    [
        ("called", {"series": "page/1", "rung": 1}, "activate-team", "everybody on call was paged"),
        ("severity", {"severity": "SEV-1", "reason": "one region"}, "assess-impact", "SEV-1: one region"),
        ("noted", {"field": "impact", "text": "wards on paper"}, "assess-impact", "wards on paper"),
        ("said", {"word": "first"}, "first-word", "the first word was sent"),
        ("noted", {"field": "war-room", "text": "bridge 7"}, "war-room", "bridge 7"),
        ("noted", {"field": "evidence", "text": "see folder"}, "gather", "see folder"),
        ("noted", {"field": "cause", "text": "a disk"}, "root-cause", "a disk"),
        ("noted", {"field": "patients", "text": "some 40"}, "affected", "some 40"),
        ("noted", {"field": "mitigation", "text": "fail over"}, "choose-mitigation", "fail over"),
        ("noted", {"field": "eta", "text": "20 minutes"}, "estimate", "20 minutes"),
        ("status", {"status": "mitigating"}, "mitigate", "it is being mitigated"),
        ("status", {"status": "monitoring"}, "watch", "its effect is being watched"),
        ("said", {"word": "update"}, "update", "1 updates since the first word"),
        ("noted", {"field": "failover", "text": "gates are green"}, "prepare-failover", "gates are green"),
    ],
)
def test_what_is_on_the_record_ticks_its_item_with_evidence(kind, data, item, evidence) -> None:
    log = declared()
    assert done(log) == ["declare", "incident-log", "record-actions"]
    log.later(minutes=1).add(f"incident.{kind}", "INC-1", "Celia Marsh", **data)
    seen = lines(log)[item].seen
    assert seen is not None
    assert (seen.evidence, seen.at) == (evidence, log.now)


@pytest.mark.req("IR-4")
def test_a_person_ticks_and_opens_again_and_goes_before_the_system() -> None:
    log = declared()
    log.add("incident.ticked", "INC-1", "Dov Larkspur", item="root-cause", done=True, evidence="ticket 12")
    seen = lines(log)["root-cause"].seen
    assert seen is not None
    assert (seen.by, seen.evidence) == ("Dov Larkspur", "ticket 12")
    log.add("incident.ticked", "INC-1", "Dov Larkspur", item="declare", done=False)
    assert lines(log)["declare"].seen is None


@pytest.mark.req("IR-4")
def test_what_is_left_is_overdue_after_its_time_until_it_is_done_or_over() -> None:
    log = declared()
    log.later(minutes=5)
    assert not any(line.overdue for line in lines(log).values())
    log.later(seconds=1)
    late = [key for key, line in lines(log).items() if line.overdue]
    assert late == ["activate-team", "assess-impact", "first-word", "war-room"]
    log.add("incident.noted", "INC-1", "Celia Marsh", field="war-room", text="bridge 7")
    assert not lines(log)["war-room"].overdue
    log.add("incident.status", "INC-1", "Celia Marsh", status="resolved")
    assert not any(line.overdue for line in lines(log).values())


def test_a_failover_that_was_decided_ticks_its_preparation() -> None:
    log = Log()
    log.add("failover.decided", "us-east-1", kind="region-unreachable", epoch=1)
    log.route("us-east-1")
    seen = lines(log)["prepare-failover"].seen
    assert seen is not None
    assert "us-east-1" in seen.evidence


def test_what_was_ticked_before_it_came_back_is_to_be_done_again() -> None:
    log = declared()
    log.later(minutes=1)
    for key in ITEMS:
        log.add("incident.ticked", "INC-1", "Celia Marsh", item=key, done=True, evidence="x")
    log.add("incident.noted", "INC-1", "Celia Marsh", field="cause", text="a disk")
    log.add("incident.status", "INC-1", "Celia Marsh", status="resolved")
    log.later(hours=1).add("incident.reopened", "INC-1", "Celia Marsh", reason="it came back")
    assert done(log) == ["declare", "incident-log", "record-actions"]


def test_an_assigned_role_owns_its_items() -> None:
    log = declared()
    log.add("incident.assigned", "INC-1", "Ada Quill", role=COMMANDER, person="Celia Marsh")
    assert lines(log)["first-word"].owner == "Celia Marsh"
