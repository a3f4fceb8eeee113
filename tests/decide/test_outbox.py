"""The outbox: whatever fails and whoever dies, every message leaves, in order of need, within each channel's rate, or is said to be stuck."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casebook import START, Log
from hmsdr.decide.outbox import (
    NOT_ARRIVED,
    PAUSES,
    RECEIPTS_FOR,
    UNHEARD,
    Attempt,
    Outbox,
    failing,
    fold,
    kind_of,
    ready,
    unreceipted,
)
from hmsdr.playbook.people import Rates

SLACK, TEAMS = "slack:#incident-response", "teams:Incident Response"


def queued(log: Log, key: str, need: int = 1, channels: tuple[str, ...] = (SLACK, TEAMS)) -> None:
    log.add("message.queued", key, channels=list(channels), need=need, subject="s", body="b", word="call")


def box(log: Log) -> Outbox:
    return fold(Outbox(), log.events)


def sending(log: Log, attempt: Attempt) -> None:
    log.add("message.sending", attempt.key, channel=attempt.channel, attempt=attempt.number)


def settled(log: Log, attempt: Attempt, kind: str, **data: object) -> None:
    log.add(f"message.{kind}", attempt.key, channel=attempt.channel, **data)


def test_what_is_needed_most_goes_first_and_nothing_twice() -> None:
    log = Log()
    for key, need in (("b", 1), ("a", 0), ("c", 1), ("b", 0)):
        queued(log, key, need)
    attempts = ready(box(log), log.now)
    assert [each.key for each in attempts] == ["a", "b", "c"]
    for each in attempts:
        sending(log, each)
    assert ready(box(log), log.now) == []
    for each in attempts:
        settled(log, each, "sent")
    queued(log, "a")
    done = box(log)
    assert (set(done.done), done.waiting) == ({"a", "b", "c"}, {})
    assert not any(each.maybe_twice for each in done.done.values())


@pytest.mark.req("CM-1")
def test_a_channel_that_asks_for_peace_is_left_in_peace_by_every_message() -> None:
    log = Log()
    queued(log, "a")
    queued(log, "only", channels=(SLACK,))
    for attempt in ready(box(log), log.now):
        sending(log, attempt)
        settled(log, attempt, "failed", found="HTTP 429", after=90)
    queued(log, "later")
    assert [(each.key, each.channel) for each in ready(box(log), log.now)] == [("a", TEAMS), ("later", TEAMS)]
    now = log.now + timedelta(seconds=89)
    assert SLACK not in {each.channel for each in ready(box(log), now)}
    assert ("only", SLACK) in {
        (each.key, each.channel) for each in ready(box(log), now + timedelta(seconds=2))
    }


@pytest.mark.parametrize("after", [None, "90", -1, 0, 1e9, float("nan"), True])
def test_an_odd_wish_for_peace_silences_no_channel(after: object) -> None:
    log = Log()
    queued(log, "a", channels=(SLACK,))
    (attempt,) = ready(box(log), log.now)
    sending(log, attempt)
    settled(log, attempt, "failed", found="x", after=after)
    assert [each.channel for each in ready(box(log), log.now + PAUSES[0])] == [SLACK]


def test_what_became_of_a_message_is_known_once_its_channel_told() -> None:
    log = Log()
    queued(log, "a", channels=("sms:Ada",))
    (attempt,) = ready(box(log), log.now)
    sending(log, attempt)
    settled(log, attempt, "sent", reference="SM1")
    assert [key for key, _ in unreceipted(box(log), log.now)] == ["a"]
    assert unreceipted(box(log), log.now + RECEIPTS_FOR) == []
    settled(log, attempt, "receipt", status="undelivered")
    log.add("message.receipt", "nobody", status="delivered")
    assert (unreceipted(box(log), log.now), box(log).done["a"].receipt) == ([], "undelivered")


@pytest.mark.req("CM-1", "CO-3")
@pytest.mark.parametrize("status", sorted(NOT_ARRIVED))
def test_what_a_receipt_says_did_not_arrive_goes_the_next_way_and_each_way_once(status: str) -> None:
    log = Log()
    queued(log, "a", channels=("sms:Ada", "phone:Ada"))
    (first,) = ready(box(log), log.now)
    sending(log, first)
    settled(log, first, "sent", reference="SM1")
    assert ready(box(log), log.now) == []
    settled(log, first, "receipt", status=status)
    assert box(log).waiting["a"].found == f"sms:Ada: {status}"
    (second,) = ready(box(log), log.now)
    assert second.channel == "phone:Ada"
    sending(log, second)
    settled(log, first, "receipt", status="delivered")  # told late, of the way before
    settled(log, second, "sent", reference="CA1")
    settled(log, first, "receipt", status=status)  # another keeper had asked, too
    done = box(log).done["a"]
    assert (done.channel, done.receipt, done.maybe_twice) == ("phone:Ada", "", False)
    settled(log, second, "receipt", status=status)
    assert ready(box(log), log.now + UNHEARD) == []
    assert (box(log).done["a"].receipt, box(log).waiting) == (status, {})


def test_a_message_that_arrived_or_has_no_other_way_is_kept_no_longer() -> None:
    log = Log()
    queued(log, "a", channels=("sms:Ada", "phone:Ada"))
    queued(log, "b", channels=("sms@patients",))
    for each in ready(box(log), log.now):
        sending(log, each)
        settled(log, each, "sent", reference=f"SM-{each.key}")
    assert box(log).done["b"].parcel is None
    log.add("message.receipt", "a", channel="sms:Ada", status="delivered")
    assert (box(log).done["a"].parcel, box(log).done["a"].receipt) == (None, "delivered")


@pytest.mark.req("CM-1")
def test_the_next_channel_at_once_the_same_one_after_a_pause() -> None:
    log = Log()
    queued(log, "a")
    seen = []
    for _ in range(6):
        (attempt,) = ready(box(log), log.now)
        seen.append(attempt.channel)
        sending(log, attempt)
        settled(log, attempt, "failed", found="HTTP 503")
        if len(seen) % 2 == 0:
            assert failing(box(log))
            pause = PAUSES[len(seen) // 2 - 1]
            assert ready(box(log), log.now + pause - timedelta(milliseconds=1)) == []
            log.now += pause
    assert seen == [SLACK, TEAMS] * 3


def test_a_channel_that_refuses_for_good_is_left_out_until_all_do() -> None:
    log = Log()
    queued(log, "a")
    (attempt,) = ready(box(log), log.now)
    sending(log, attempt)
    settled(log, attempt, "failed", found="HTTP 404", permanent=True)
    for minutes in (0, 2, 2):
        log.later(minutes=minutes)
        (attempt,) = ready(box(log), log.now)
        assert attempt.channel == TEAMS
        sending(log, attempt)
        settled(log, attempt, "failed", found="HTTP 503")
    log.later(minutes=2)
    sending(log, ready(box(log), log.now)[0])
    settled(log, attempt, "failed", found="HTTP 404", permanent=True)
    log.later(minutes=2)
    assert ready(box(log), log.now)


@pytest.mark.parametrize("data", [None, {"unknown": True, "found": "no answer"}])
def test_what_may_have_arrived_is_sent_again_and_said_to_be_maybe_twice(data: dict | None) -> None:
    log = Log()
    queued(log, "a")
    (attempt,) = ready(box(log), log.now)
    sending(log, attempt)
    if data is not None:
        settled(log, attempt, "failed", **data)
    else:
        assert ready(box(log), log.now + UNHEARD - timedelta(seconds=1)) == []
        log.now += UNHEARD
    (again,) = ready(box(log), log.now)
    assert again.number == 2
    sending(log, again)
    settled(log, again, "sent")
    assert box(log).done["a"].maybe_twice


def test_no_channel_is_asked_for_more_than_it_takes_in_a_minute() -> None:
    log = Log()
    for number in range(200):
        queued(log, f"m{number}", channels=(SLACK,))
    sent = 0
    for _ in range(20):
        for each in ready(box(log), log.now):
            sending(log, each)
            settled(log, each, "sent")
            sent += 1
        log.later(seconds=1)
    assert sent == Rates().slack
    log.later(minutes=1)
    assert len(ready(box(log), log.now)) == 50
    assert kind_of(SLACK) == "slack"


@pytest.mark.req("CM-1")
def test_the_playbook_says_how_much_each_kind_of_channel_takes() -> None:
    log = Log()
    for number in range(12):
        queued(log, f"s{number}", channels=(SLACK,))
        queued(log, f"p{number}", channels=("pager:night",))
    rates = Rates(slack=5, others=2)

    def step() -> dict[str, int]:
        took = Counter[str]()
        for each in ready(box(log), log.now, rates=rates):
            sending(log, each)
            settled(log, each, "sent")
            took[kind_of(each.channel)] += 1
        return dict(took)

    assert step() == {"slack": 5, "pager": 2}
    log.later(seconds=59)
    assert step() == {}
    log.later(seconds=1)
    assert step() == {"slack": 5, "pager": 2}
    assert len(box(log).recent) == 7, "sendings of earlier minutes are kept for ever"


steps = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2), st.integers(0, 10**6)), max_size=15)


@settings(deadline=None, max_examples=60)
@given(script=steps)
def test_whoever_dies_and_whatever_fails_every_message_leaves(script):
    """Several senders, which die between recording and sending, or between sending and recording; channels that fail."""
    log = Log()
    arrived: dict[str, int] = {}
    keys = [f"m{number}" for number in range(8)]
    for key in keys:
        queued(log, key)

    def step(chance: random.Random, *, calm: bool) -> None:
        for attempt in ready(box(log), log.now):
            before = box(log).waiting[attempt.key]
            assert before.sending_at is None or log.now - before.sending_at >= UNHEARD
            sending(log, attempt)
            fate = "sent" if calm else chance.choice(["sent", "failed", "lost", "dead before", "dead after"])
            if fate in ("sent", "lost", "dead after"):
                arrived[attempt.key] = arrived.get(attempt.key, 0) + 1
            if fate == "sent":
                settled(log, attempt, "sent")
            elif fate in ("failed", "lost"):
                settled(log, attempt, "failed", found="x", unknown=fate == "lost")

    for wait, _, seed in script:
        step(random.Random(seed), calm=False)
        log.later(seconds=wait * 15)
    for _ in range(5):
        log.later(minutes=2)
        step(random.Random(0), calm=True)
    last = box(log)
    assert not last.waiting
    assert set(last.done) == set(keys) == set(arrived)
    # Whoever has it twice is among those of whom it is said.
    assert {key for key, times in arrived.items() if times > 1} <= {
        key for key, each in last.done.items() if each.maybe_twice
    }


@settings(deadline=None, max_examples=30)
@given(script=steps, cut=st.integers(0, 80))
def test_a_restart_changes_nothing(script, cut):
    log = Log(START)
    for number in range(3):
        queued(log, f"m{number}")
    for wait, fate, _ in script:
        for attempt in ready(box(log), log.now):
            sending(log, attempt)
            if fate:
                settled(log, attempt, "sent" if fate == 1 else "failed", found="x")
        log.later(seconds=wait * 20)
    whole = box(log)
    assert fold(fold(Outbox(), log.events[:cut]), log.events) == whole
    assert ready(fold(fold(Outbox(), log.events[:cut]), log.events), log.now) == ready(whole, log.now)
