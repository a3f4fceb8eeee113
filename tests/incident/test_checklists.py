"""The checklists of AP-1, ticked from what a run recorded and from nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from story import GATES, moment, run

from hmsdr.incident.checklists import Item, ItemState, as_json, post_failover, pre_failover
from hmsdr.runbook.state import RunState

pytestmark = pytest.mark.req("AP-1")
PRE = (
    "Secondary region health verified", "Database replication lag within its limit", "Backup data is current",
    "Stakeholders notified", "Rollback plan prepared", "Communication channels ready",
)  # fmt: skip
POST = (
    "All services operational in new primary", "Database replication working", "DNS records updated",
    "Monitoring working", "Alerts configured", "Documentation updated", "Stakeholders notified of completion",
)  # fmt: skip


def items(state: RunState) -> dict[str, Item]:
    both = (*pre_failover(state), *post_failover(state))
    return {item.title: item for item in both}


def test_a_whole_run_ticks_every_item_that_can_be_had() -> None:
    state = run()
    assert tuple(item.title for item in pre_failover(state)) == PRE
    assert tuple(item.title for item in post_failover(state)) == POST
    found = items(state)
    assert [title for title, item in found.items() if item.state is not ItemState.DONE] == [
        "Database replication working"
    ]
    replication = found["Database replication working"]
    assert replication.state is ItemState.NOT_POSSIBLE
    assert "us-east-1 is lost; slot us_east_1_slot reserved keeps its WAL" in replication.evidence
    assert found["DNS records updated"].evidence == "weights us-east-1 0, us-west-2 100"
    assert found["DNS records updated"].at == moment(12.5)
    assert found["Monitoring working"].evidence == "6 of 6 targets up"
    assert found["All services operational in new primary"].evidence.count("HTTP 200 in 12 ms") == 5
    assert (
        "told on teams:y (before that: slack:#x: HTTP 503)"
        in found["Stakeholders notified of completion"].evidence
    )
    assert found["Backup data is current"].evidence == "b1, 2.0 h old"
    assert json.loads(json.dumps(as_json(tuple(found.values()))))[0]["done"] is True


def test_what_no_step_shows_stays_open_with_the_reason() -> None:
    found = items(run(failing="validation/answers-billing", end="run.failed"))
    assert found["All services operational in new primary"].evidence == "no answer from billing"
    for title in ("Monitoring working", "Alerts configured"):
        assert (found[title].state, found[title].evidence) == (ItemState.OPEN, "the run did not come to it")
    assert all(found[title].at is None for title in POST if found[title].state is ItemState.OPEN)
    broken = items(run(failing="monitoring/alerts", end="run.failed"))["Alerts configured"]
    assert (broken.state, broken.evidence) == (ItemState.OPEN, "it broke <b>. Mend it")


def test_a_run_that_goes_on_is_not_documented_yet_and_says_what_was_begun() -> None:
    state = run(until="detection", end=None)
    found = items(state)
    assert found["Documentation updated"].evidence == "the run has not ended"
    assert found["Database replication working"].evidence == "the run did not come to it"


def test_an_overruled_gate_is_open_and_names_who_overruled_it() -> None:
    gates = [
        {**GATES[0]},
        {**GATES[1], "state": "failed", "observed": "90 s"},
        {**GATES[2], "state": "unknown"},
    ]
    who = {"gate": "replication-lag", "reason": "better than nothing", "by": "Ada"}
    found = items(run(context={"gates": gates, "overrides": [who]}))
    lag = found["Database replication lag within its limit"]
    assert (lag.state, lag.evidence) == (ItemState.OPEN, "90 s; overruled by Ada: better than nothing")
    backup = found["Backup data is current"]
    assert (backup.state, backup.at) == (ItemState.OPEN, None)
    assert found["Rollback plan prepared"].evidence == "the run judged no such gate"


def test_steps_that_observed_less_than_usual_do_not_break_the_list() -> None:
    less: dict[str, dict[str, Any]] = {
        key: {}
        for key in (
            "dns-update/shift", "monitoring/watched", "monitoring/alerts", "validation/database",
            "notification/ended", "announcement/begun", "validation/answers-auth",
        )
    }  # fmt: skip
    found = items(run(observed=less))
    assert found["DNS records updated"].state is ItemState.DONE
    assert "no slot is there for it" in found["Database replication working"].evidence
