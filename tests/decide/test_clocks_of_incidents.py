"""What is due: a restart changes nothing, nothing is called twice, nothing that was missed is skipped."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casebook import BOOK, START, Log, declared
from hmsdr.decide.clocks import Due, How, due, next_due, targets
from hmsdr.decide.incidents import Book, fold
from hmsdr.decide.oncall import COMMANDER, awake

NIGHT = datetime(2026, 6, 4, 3, 0, tzinfo=UTC)
"""23:00 in New York: quiet hours, until 10:00 UTC."""
MORNING = datetime(2026, 6, 4, 10, 0, tzinfo=UTC)


def calls(log: Log) -> list[Due]:
    return list(due(log.incident(), BOOK, log.now))


def called(log: Log) -> list[str]:
    """Call what is due now, on the record."""
    found = calls(log)
    for each in found:
        log.add("incident.called", each.incident, "keeper", series=each.series, rung=each.rung)
    return [f"{each.series}:{each.rung}:{each.how}" for each in found]


@pytest.mark.req("IR-1")
def test_whoever_is_on_call_is_paged_at_once_and_once() -> None:
    log = declared()
    (page,) = calls(log)
    assert (page.series, page.how, page.due_at) == ("page/1", How.PAGE, START)
    assert set(page.people) == {chain[0] for chain in log.incident().roles.values()}
    assert called(log) == ["page/1:1:page"]
    assert calls(log) == []


@pytest.mark.req("CL-2", "CO-3")
@pytest.mark.parametrize(("severity", "minutes"), [("SEV-0", 5), ("SEV-1", 15), ("SEV-2", 30), ("SEV-3", 60)])
def test_nobody_acknowledges_the_backup_is_called_then_the_phones_ring_then_everybodys(severity, minutes):
    log = declared()
    log.add("incident.severity", "INC-1", "Celia Marsh", severity=severity, reason="x")
    log.add("incident.said", "INC-1", "Celia Marsh", word="first")
    called(log)
    at = START + timedelta(minutes=minutes)
    series = [
        call
        for hours in range(4)
        for call in due(log.incident(), BOOK, at + timedelta(hours=hours))
        if call.series == "response/1"
    ]
    commander = log.incident().roles[COMMANDER]
    assert series[0].due_at == at
    assert (series[0].how, series[0].people) == (How.CALL, commander[:2])
    seen = {(call.rung, call.how, call.due_at - at) for call in series}
    assert seen == {
        (1, How.CALL, timedelta(0)),
        (2, How.PHONE, timedelta(minutes=5)),
        (3, How.EVERYBODY, timedelta(minutes=10)),
        (4, How.EVERYBODY, timedelta(minutes=70)),
        (5, How.EVERYBODY, timedelta(minutes=130)),
    }
    everybody = {name for chain in log.incident().roles.values() for name in chain}
    assert set(series[-1].people) == everybody


def test_who_acknowledges_stops_the_calls_and_a_late_one_stays_late() -> None:
    log = declared()
    called(log)
    log.later(minutes=16)
    assert "response/1:1:call" in called(log)
    log.add("incident.acknowledged", "INC-1", "Edda Thorne")
    log.later(hours=2)
    assert not [call for call in calls(log) if call.series.startswith("response")]
    (target,) = [each for each in targets(log.incident(), BOOK, log.now) if each.name == "acknowledged"]
    assert (target.met, target.done_at) == (False, START + timedelta(minutes=16))


@pytest.mark.req("CL-3")
def test_another_severity_times_everything_anew_and_calls_nobody_again() -> None:
    log = declared()
    called(log)
    log.later(minutes=6)
    assert called(log) == ["first-word/1:1:call"]
    log.add("incident.severity", "INC-1", "Celia Marsh", severity="SEV-0", reason="all patients")
    assert called(log) == ["response/1:1:call"]
    log.add("incident.severity", "INC-1", "Celia Marsh", severity="SEV-1", reason="no, one region")
    assert calls(log) == []
    log.later(minutes=10)
    assert "response/1:1:call" not in called(log)


@pytest.mark.req("CM-2")
def test_words_are_due_after_five_minutes_every_fifteen_and_thirty_after_the_end() -> None:
    log = declared()
    commander = log.incident().roles[COMMANDER][0]
    called(log)
    log.add("incident.acknowledged", "INC-1", commander)
    log.later(minutes=5)
    assert called(log) == ["first-word/1:1:call"]
    first = log.add("incident.said", "INC-1", commander, word="first").seq
    log.later(minutes=14, seconds=59)
    assert calls(log) == []
    log.later(seconds=1)
    assert called(log) == [f"update/{first}:1:call"]
    second = log.add("incident.said", "INC-1", commander, word="update").seq
    log.later(minutes=15)
    assert called(log) == [f"update/{second}:1:call"]
    log.add("incident.status", "INC-1", commander, status="resolved")
    log.later(minutes=29)
    assert calls(log) == []
    log.later(minutes=1)
    assert called(log) == ["resolution/1:1:call"]
    log.add("incident.said", "INC-1", commander, word="resolution")
    log.later(days=30)
    assert calls(log) == []
    assert next_due(log.incident(), BOOK, log.now) is None


@pytest.mark.req("CO-3")
def test_a_commander_of_whom_nothing_is_heard_is_asked_then_the_backup_is_called() -> None:
    log = declared()
    commander, backup, *_ = log.incident().roles[COMMANDER]
    log.add("incident.acknowledged", "INC-1", commander)
    log.later(minutes=30)

    def of_commander() -> list[Due]:
        return [call for call in calls(log) if call.series.startswith("commander/")]

    (asked,) = of_commander()
    assert (asked.how, asked.people) == (How.PAGE, (commander,))
    log.add("incident.noted", "INC-1", commander, text="still here")
    assert of_commander() == []
    log.later(minutes=35)
    assert [call.people for call in of_commander()] == [(commander,), (commander, backup)]
    # Somebody else's word is no sign of the commander; a new commander has as long as the first.
    log.add("incident.noted", "INC-1", backup, text="where are you?")
    assert len(of_commander()) == 2
    log.add("incident.assigned", "INC-1", backup, role=COMMANDER, person=backup)
    assert of_commander() == []
    log.later(minutes=30)
    assert [call.people for call in of_commander()] == [(backup,)]


@pytest.mark.parametrize(("severity", "at"), [("SEV-0", NIGHT), ("SEV-1", NIGHT), ("SEV-2", MORNING)])
def test_quiet_hours_never_apply_to_the_two_gravest(severity, at):
    log = declared(NIGHT)
    log.add("incident.severity", "INC-1", "Celia Marsh", severity=severity, reason="x")
    asleep = awake(BOOK.on_call, NIGHT) == MORNING
    assert asleep
    assert [call.due_at for call in due(log.incident(), BOOK, MORNING) if call.series == "page/1"] == [at]
    if at == MORNING:
        assert due(log.incident(), BOOK, MORNING - timedelta(seconds=1)) == ()
        assert next_due(log.incident(), BOOK, NIGHT) == MORNING
        late = {each.name: each.met for each in targets(log.incident(), BOOK, MORNING)}
        assert late["acknowledged"] is False


def test_what_is_reopened_calls_again() -> None:
    log = declared()
    called(log)
    log.add("incident.status", "INC-1", "Ada Quill", status="resolved")
    log.ended("damage/us-east-1")
    log.later(hours=1).began("damage/us-east-1")
    log.route("us-east-1")
    assert "page/2:1:page" in called(log)
    log.later(minutes=15)
    assert "response/2:1:call" in called(log)


people = ("Ada Quill", "Edda Thorne", "Celia Marsh")
actions: st.SearchStrategy[tuple[str, dict, str]] = st.one_of(
    st.tuples(st.just("acknowledged"), st.just({}), st.sampled_from(people)),
    st.tuples(
        st.just("severity"),
        st.sampled_from(["SEV-0", "SEV-1", "SEV-2", "SEV-3"]).map(lambda s: {"severity": s, "reason": "x"}),
        st.sampled_from(people),
    ),
    st.tuples(
        st.just("said"),
        st.sampled_from(["first", "update", "resolution"]).map(lambda w: {"word": w}),
        st.sampled_from(people),
    ),
    st.tuples(
        st.just("status"),
        st.sampled_from(["mitigating", "resolved"]).map(lambda s: {"status": s}),
        st.sampled_from(people),
    ),
    st.tuples(st.just("noted"), st.just({"text": "x"}), st.sampled_from(people)),
)
scripts = st.lists(st.tuples(st.integers(1, 7200), actions), max_size=6)


def played(script, begin: datetime, watch: float, chance: random.Random | None = None) -> Log:
    """A keeper looks every `watch` seconds, or now and then; people do what the script says, just after it looked."""
    log = declared(begin)
    end = begin + timedelta(seconds=sum(wait for wait, _ in script) + 7200)
    moment = begin
    acts = []
    for wait, action in script:
        moment += timedelta(seconds=wait)
        acts.append((moment, action))
    looks = []
    at = begin
    while at < end:
        looks.append(at)
        at += timedelta(seconds=chance.uniform(1, 2 * watch) if chance else watch)
    # Whoever acts is seen by a keeper just before: what is due then has been called in both plays.
    plan = sorted(
        [*((at, 0, None) for at in [*looks, *(when for when, _ in acts), end]), *((when, 1, act) for when, act in acts)],
        key=lambda item: item[:2],
    )  # fmt: skip
    for when, _, action in plan:
        log.now = when
        if action is None:
            called(log)
        else:
            kind, data, actor = action
            log.add(f"incident.{kind}", "INC-1", actor, **data)
    return log


def made(log: Log) -> list[tuple[str, int]]:
    return [
        (event.data["series"].split("/")[0], event.data["rung"])
        for event in log.events
        if event.kind == "incident.called"
    ]


@settings(deadline=None, max_examples=40)
@given(script=scripts, begin=st.sampled_from([START, NIGHT]), seed=st.integers(0, 1000))
def test_nothing_is_called_twice_or_skipped_however_often_somebody_looks(script, begin, seed):
    often = played(script, begin, 120.0)
    seldom = played(script, begin, 1800.0, random.Random(seed))
    assert sorted(made(often)) == sorted(made(seldom))
    for log in (often, seldom):
        rungs: dict[str, list[int]] = {}
        for event in log.events:
            if event.kind == "incident.called":
                rungs.setdefault(event.data["series"], []).append(event.data["rung"])
        assert all(found == list(range(1, len(found) + 1)) for found in rungs.values())
        assert log.incident().called == {series: found[-1] for series, found in rungs.items()}


@settings(deadline=None, max_examples=40)
@given(
    script=scripts, begin=st.sampled_from([START, NIGHT]), cut=st.integers(0, 60), wait=st.integers(0, 10000)
)
def test_a_restart_changes_nothing(script, begin, cut, wait):
    log = played(script, begin, 600.0)
    now = log.now + timedelta(seconds=wait)
    restarted = fold(fold(Book(), log.events[:cut]), log.events)
    assert due(restarted.incidents["INC-1"], BOOK, now) == due(log.incident(), BOOK, now)


@settings(deadline=None)
@given(script=scripts, begin=st.sampled_from([START, NIGHT]), wait=st.integers(0, 50000))
def test_the_next_call_comes_when_it_was_said_and_none_before(script, begin, wait):
    log = played(script, begin, 600.0)
    now = log.now + timedelta(seconds=wait)
    before = due(log.incident(), BOOK, now)
    following = next_due(log.incident(), BOOK, now)
    if following is None:
        assert due(log.incident(), BOOK, now + timedelta(days=10)) == before
        return
    assert due(log.incident(), BOOK, following - timedelta(microseconds=1)) == before
    assert len(due(log.incident(), BOOK, following)) > len(before)


@settings(deadline=None)
@given(script=scripts, wait=st.integers(0, 50000))
def test_whoever_may_sleep_is_never_called_in_quiet_hours(script, wait):
    log = played(script, NIGHT, 600.0)
    for call in due(log.incident(), BOOK, log.now + timedelta(seconds=wait)):
        if log.incident().severity in ("SEV-2", "SEV-3"):
            assert awake(BOOK.on_call, call.due_at) == call.due_at
