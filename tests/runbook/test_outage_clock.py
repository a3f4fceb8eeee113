"""The RTO clock of a run: since when users wait, until when, and how much is done."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from story import STAGES, moment, run

from hmsdr.runbook.outage_clock import SEEN_AT, outage, steps_done


@pytest.mark.req("FM-3")
def test_it_runs_from_when_the_region_was_lost_until_everything_is_validated() -> None:
    trigger = {"kind": "region-unreachable", "unreachable_since": moment(0.5).isoformat()}
    under_way = run(
        until="promotion", end=None, context={"trigger": trigger, SEEN_AT: moment(-3).isoformat()}
    )
    found = outage(under_way)
    assert found is not None
    assert (found.since, found.until) == (moment(0.5), None)
    assert found.lasted(moment(10)) == timedelta(seconds=9.5)
    done, steps = steps_done(under_way)
    assert 0 < done < steps

    ended = run(context={"trigger": trigger})
    found = outage(ended)
    assert found is not None
    assert found.until == moment(STAGES["validation"][1])
    assert found.lasted(moment(1000)) == timedelta(seconds=14)
    done, steps = steps_done(ended)
    assert done == steps


def test_without_a_trigger_the_last_sign_of_life_counts_and_without_one_there_is_no_clock() -> None:
    found = outage(run(until="detection", end=None, context={SEEN_AT: moment(-2).isoformat()}))
    assert found is not None
    assert found.since == moment(-2)
    assert outage(run(until="detection", end=None)) is None


def test_a_planned_one_makes_users_wait_from_the_fence_on() -> None:
    state = run()
    planned = replace(state, plan=state.plan.model_copy(update={"mode": "planned"}))
    found = outage(planned)
    rest = replace(planned, plan=planned.plan.model_copy(update={"granted": True}))
    assert outage(rest) is None, "the target writes already: nobody waits for a fence"
    assert found is not None
    assert found.since == moment(STAGES["fencing"][0])
    before = run(until="verification", end=None)
    assert outage(replace(before, plan=before.plan.model_copy(update={"mode": "planned"}))) is None


def test_a_validation_that_failed_is_no_end() -> None:
    key = next(step.key for step in run().plan.steps() if step.key.startswith("validation/"))
    found = outage(run(failing=key, context={SEEN_AT: moment(0).isoformat()}))
    assert found is not None
    assert found.until is None
