"""What a drill reports, reckoned by hand from its story: RTO, RPO, execution, losses, and what keeps it from passing."""

from __future__ import annotations

import json

import pytest
from story import (
    EAST,
    FAULT,
    STAGES,
    WEST,
    circle,
    data,
    database_circle,
    database_run,
    entry,
    gathered,
    home,
    ledger,
    moment,
    recovery,
    run,
)

from hmsdr.drill.going_home import as_at_start
from hmsdr.drill.measures import assess, execution_seconds
from hmsdr.drill.report import Report
from hmsdr.incident.checklists import ItemState


def report(*args: object, **more: object) -> Report:
    return assess(gathered(*args, **more))  # type: ignore[arg-type]


@pytest.mark.req("TV-4", "FA-2")
def test_a_drill_that_passes() -> None:
    found = report(ledger(), run())
    assert (found.outcome, found.failures) == ("passed", ())
    # First failed request sent at 0 s; first lasting success sent at 14 s, heard 20 ms later.
    assert found.rto_seconds == pytest.approx(14.02)
    assert found.execution_seconds == pytest.approx(14.5 - 11.0)
    assert (found.rpo_seconds, found.lost_writes, found.dual_writers) == (0.0, (), 0)
    assert found.acknowledged_writes == 12 + 24
    assert (found.users.requests, found.users.failed, found.users.failed_before_fault) == (92, 56, 0)
    stages = {stage.name: stage for stage in found.stages}
    assert set(STAGES) <= set(stages)
    # Detection begins with the fault, not with the run.
    assert (stages["detection"].started_at, stages["detection"].seconds) == (moment(0), pytest.approx(7.5))
    assert (stages["fencing"].started_at, stages["fencing"].seconds) == (moment(8), pytest.approx(3))
    assert found.counts == {"patients": 42}
    assert sum(bucket.requests for bucket in found.users.moments) == found.users.requests
    assert found.users.moments[0].at == pytest.approx(-3)


@pytest.mark.req("TV-4", "RC-1", "RC-2")
def test_the_circle_goes_on_with_the_recovery_and_what_was_lost_is_the_old_primarys_own_word() -> None:
    found = report(ledger(), run(), **circle(recovery(), compared=data(), gone_home=home()))
    assert (found.outcome, found.realised_rpo) == ("passed", 0.4)
    assert [(phase.name, phase.seconds) for phase in found.phases] == [
        ("failover", pytest.approx(15.0)),
        ("machines-back", 4.0),
        ("recovery", 8.0),
    ]
    written = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert written["phases"][-1]["run"] == "run-y"
    assert written["reconciled"] == {"seconds": 0.4, "commits": 3, "rows": 2, "complete": True}
    assert any(step["key"] == "database/recover" for step in written["recovery_steps"])
    assert written["data_equal"]["equal"]
    assert [(each["table"], each["rows"]) for each in written["data_equal"]["tables"]] == [
        ("patients", 42),
        ("encounters", 42),
    ]
    steps = written["traffic_steps"]
    assert [(step["asked"], step["arrived"], step["held"], step["verdict"]) for step in steps] == [
        (share, share + 1.5, 5.0, "good") for share in (20, 40, 60, 80, 100)
    ]
    assert steps[0]["home"]["p95"] == 0.031


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (circle(None), "what was lost was not brought back"),
        (circle(recovery(end="run.failed")), "the recovery ended failed"),
        (circle(recovery(failing="cache/replica")), "not done in the recovery: Redis of us-east-1"),
        (circle(recovery(), complete=False), "is not known row by row"),
        (circle(recovery(), seconds=1e6), "1000000.0 s of commits alone"),
        (circle(recovery()), "the data of both sides were not compared"),
        (circle(recovery(), compared=data("patients")), "are not equal: patients"),
        (circle(recovery(), compared=data()), "the hospital did not go home"),
        (
            circle(
                recovery(),
                compared=data(),
                gone_home=home(failing="traffic-40/watch", end="run.rolled_back"),
            ),
            "going home ended rolled_back",
        ),
    ],
)
def test_a_region_that_is_not_whole_again_keeps_it_from_passing(more: dict[str, object], words: str) -> None:
    found = report(ledger(), run(), **more)
    assert found.outcome == "failed"
    assert words in "; ".join(found.failures)


def test_report_json_has_what_was_promised_and_is_json() -> None:
    data = json.loads(json.dumps(report(ledger(), run()).as_json(), allow_nan=False))
    assert {
        "scenario", "outcome", "stages", "rto_seconds", "execution_seconds", "rpo_seconds", "acknowledged_writes",
        "lost_writes", "dual_writers", "checklists",
    } <= data.keys()  # fmt: skip
    assert all({"name", "started_at", "seconds"} <= stage.keys() for stage in data["stages"])
    assert data["stages"][0]["started_at"] == moment(0).isoformat()
    assert [len(data["checklists"][when]) for when in ("pre-failover", "post-failover")] == [6, 7]
    assert all(item["done"] in (True, False) for items in data["checklists"].values() for item in items)
    empty = report([], None, trigger=None, present=None, log_head=None).as_json()
    assert json.loads(json.dumps(empty, allow_nan=False))["rto_seconds"] is None


@pytest.mark.req("DB-4")
def test_lost_writes_are_named_and_the_oldest_makes_the_rpo() -> None:
    entries = ledger()
    present = {item.id for item in entries if item.ok} - {"w-0.5", "w-0.25"}
    found = report(entries, run(), present=present)
    assert found.lost_writes == ("w-0.5", "w-0.25")
    assert found.rpo_seconds == pytest.approx(0.48)
    assert found.outcome == "passed"
    long = [entry(-40.0), *entries]
    found = report(long, run(), present=present)
    assert found.rpo_seconds == pytest.approx(39.98)
    assert found.failures == ("writes of 40.0 s were lost; the target is 30s",)
    # Not compared is not the same as nothing lost.
    found = report(entries, run(), present=None)
    assert found.rpo_seconds is None
    assert "not compared" in "".join(found.failures)


@pytest.mark.req("FA-4")
def test_what_the_new_side_acknowledged_and_lost_is_no_matter_of_the_rpo() -> None:
    entries = ledger()
    present = {item.id for item in entries if item.ok} - {"w15"}
    found = report(entries, run(), present=present)
    assert found.lost_writes == ("w15",)
    assert found.failures == ("1 writes were sent well after the fault, acknowledged, and are not there",)


@pytest.mark.req("FA-4")
def test_two_writers_at_once_fail_the_drill() -> None:
    entries = [*ledger(), entry(16.1, epoch=4), entry(17.1, epoch=4)]
    found = report(entries, run())
    assert found.dual_writers == 2
    assert found.failures == ("2 writes were acknowledged under an epoch that was over",)
    # Sent before the later epoch was heard of, it proves nothing.
    assert report([*ledger(), entry(13.9, epoch=4, took=0.5)], run()).dual_writers == 0


def test_what_users_felt_is_what_counts() -> None:
    never = report(ledger(served_from=99), run())
    assert (never.rto_seconds, never.failures) == (None, ("users were not served again",))
    slow = report(ledger(served_from=901, until=920), run())
    assert slow.failures == ("users waited 901.0 s; the target is 15m",)
    unnoticed = report(ledger(served_from=0), run())
    assert unnoticed.failures == ("no user noticed the fault: the clinics were not at work",)
    assert unnoticed.users.first_failed_at is None
    hours = report(ledger(served_from=4 * 3600, until=4 * 3600 + 20, each=1), run())
    assert hours.rto_seconds == pytest.approx(4 * 3600 + 0.02)
    # Missing data is a lost write, not an outage; and what failed before the fault is not its doing.
    odd = [*ledger(), entry(18.1, ok=False, error="missing", kind="read"), entry(-2.1, ok=False)]
    found = report(odd, run())
    assert found.failures == ()
    assert (found.users.failed, found.users.failed_before_fault) == (57, 1)


def test_a_second_outage_is_not_hidden_by_the_first() -> None:
    def cut(start: float, end: float) -> list[object]:
        return [
            entry(e.sent_at - FAULT, ok=e.ok and not start <= e.sent_at - FAULT < end)
            for e in ledger(until=60)
        ]

    found = report(cut(20, 30), run())
    assert found.rto_seconds == pytest.approx(14.02)
    assert found.failures == ("users were cut off again 6.0 s later, for 10.0 s",)
    assert report(cut(50, 70), run()).failures == ("users were cut off again 36.0 s later, for good",)
    assert report(cut(20, 20.5), run()).failures == (), "two failed requests are no outage"


@pytest.mark.req("FA-2")
def test_a_run_that_failed_half_way_has_no_execution_time() -> None:
    failed = run(failing="validation/database", end="run.failed")
    assert execution_seconds(failed) is None
    found = report(ledger(), failed)
    assert found.failures == ("the failover ended failed: `hmsdr run show run-x`",)
    assert {stage.name: stage.outcome for stage in found.stages}["validation"] == "failed"
    assert [(step.key, step.found) for step in found.steps if step.state == "failed"] == [
        ("validation/database", "it broke <b>")
    ]
    early = run(failing="detection/standby-answers", end="run.rolled_back")
    found = report(ledger(served_from=99), early)
    assert [stage.name for stage in found.stages] == ["detection"]
    assert len(found.failures) == 2
    assert "rolled_back" in found.failures[0]
    # A promotion without a proof of fencing before it is nothing to be measured.
    assert execution_seconds(run(failing="fencing/free-authority", end="run.failed")) is None


def test_a_run_that_has_not_ended_and_none_at_all() -> None:
    found = report(ledger(), run(until="fencing", end=None))
    assert found.failures == ("the failover has not ended: `hmsdr run show run-x`",)
    none = report(ledger(served_from=99), None, problem="watching: it broke. Mend it", trigger=None)
    assert none.failures == (
        "watching: it broke. Mend it", "no failover was run", "users were not served again",
    )  # fmt: skip
    assert (none.stages, none.steps, none.run, none.plan_hash) == ((), (), None, None)
    assert (none.pre_failover, none.post_failover, none.source) == ((), (), EAST)


@pytest.mark.req("SW-2", "SW-3")
def test_a_share_that_went_back_is_in_the_report_with_the_signal_that_did_it() -> None:
    bad = home(failing="traffic-40/watch", end="run.rolled_back")
    found = report(ledger(), run(), **circle(recovery(), compared=data(), gone_home=bad))
    assert [(step.asked, step.verdict, step.found) for step in found.traffic_steps] == [
        (20, "good", ""),
        (40, "failed", "error rate of us-east-1 is 50 %"),
    ]
    assert found.traffic_steps[1].arrived is None


def test_it_ends_where_it_began_or_says_what_is_not_so() -> None:
    start = {"right to write": "a", "weights": "us-east-1 100, us-west-2 0"}
    assert as_at_start(start, dict(start)).well
    moved = as_at_start(start, {**start, "weights": "us-east-1 80, us-west-2 20"})
    assert not moved.well
    assert (
        moved.found
        == "weights: us-east-1 100, us-west-2 0 at the start, us-east-1 80, us-west-2 20 at the end"
    )
    assert not as_at_start({}, {}).well, "nothing seen is nothing shown"


@pytest.mark.req("TV-5", "RC-3")
def test_a_database_that_moved_alone_comes_home_without_shares_of_users() -> None:
    told = {"run": database_run(EAST, WEST, mode="unplanned"), **database_circle()}
    found = report(ledger(), told.pop("run"), scenario="database-failure", **told)
    assert (found.outcome, found.failures) == ("passed", ())
    assert (found.rto_seconds, found.realised_rpo) == (pytest.approx(14.02), 0.4)
    assert found.execution_seconds == pytest.approx(1.0 * 3), "fencing to validation, a second each"
    names = ["failover", "machines-back", "recovery", "data-equal", "switchback"]
    written = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert [phase["name"] for phase in written["phases"]] == names
    assert (written["data_equal"]["equal"], written["traffic_steps"]) == (True, [])
    assert [step["key"] for step in written["recovery_steps"]] == [
        "detection/primary", "standby/database", "validation/replica",
    ]  # fmt: skip
    # A database that moves alone changes no public record: that is no step which the run failed to come to.
    (record,) = [item for item in found.post_failover if item.title == "DNS records updated"]
    assert (record.state, record.evidence) == (ItemState.OPEN, "no step of database-failover does this")


@pytest.mark.req("TV-5", "RC-3")
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"recovery": None}, "what was lost was not brought back"),
        ({"data_equal": data("encounters")}, "are not equal: encounters"),
        ({"switchback": None}, "the hospital did not go home"),
        (
            {"switchback": database_run(WEST, EAST, mode="planned", failing="standby/database")},
            "not done on the way home: PostgreSQL of us-west-2 follows",
        ),
        (
            {"switchback": database_run(WEST, EAST, mode="planned", end="run.failed")},
            "going home ended failed",
        ),
        ({"reconciled": None}, "is not known row by row"),
    ],
)
def test_a_database_that_is_not_home_keeps_it_from_passing(more: dict[str, object], words: str) -> None:
    gone = database_run(EAST, WEST, mode="unplanned")
    found = report(ledger(), gone, scenario="database-failure", **{**database_circle(), **more})
    assert found.outcome == "failed"
    assert words in "; ".join(found.failures)
