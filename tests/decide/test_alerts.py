"""One alert when it begins, one when it is over, over any story of conditions, leaders and crashes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.alerts import Alert, Clocks, Condition, Ledger, Moment, weigh

KEY, CLEAR, AFTER = "damage/us-east-1", 3.0, 2.0


def condition(holds: bool | None, *, after: float = AFTER) -> Condition:
    return Condition(KEY, holds, "words", after=after)


def test_it_begins_when_it_has_held_and_ends_when_it_was_gone_for_long_enough() -> None:
    clocks, begun, ended = Clocks(), [], []
    opened: set[str] = set()
    for now in range(20):
        clocks, due = weigh(clocks, opened, [condition(4 <= now < 10)], float(now), CLEAR)
        begun += [now] * len(due.begin)
        ended += [now] * len(due.end)
        opened = (opened | {each.key for each in due.begin}) - set(due.end)
    assert (begun, ended) == ([6], [13])


def test_what_is_not_known_neither_begins_nor_ends() -> None:
    _, due = weigh(Clocks(), (), [condition(None, after=0)], 100.0, CLEAR)
    assert due.begin == ()
    _, due = weigh(Clocks(gone={KEY: 0.0}), (KEY,), [condition(None)], 100.0, CLEAR)
    assert due.end == ()
    clocks, _ = weigh(Clocks(gone={KEY: 0.0}), (KEY,), [condition(None)], 100.0, CLEAR)
    assert clocks.gone == {}, "it counts afresh once it is known"


def test_an_open_alert_of_which_nothing_speaks_any_more_is_over() -> None:
    clocks, _ = weigh(Clocks(), (KEY,), [], 0.0, CLEAR)
    _, due = weigh(clocks, (KEY,), [], CLEAR, CLEAR)
    assert due.end == (KEY,)


@given(st.lists(st.sampled_from(["began", "ended", "told", "crash"]), max_size=40))
def test_a_record_that_was_begun_twice_is_one_alert_and_each_moment_is_told_once(story: list[str]) -> None:
    """Whatever the order; a crash between telling and recording leaves it due."""
    ledger, seq, said = Ledger(), 0, []
    for what in story:
        seq += 1
        if what == "began":
            ledger = ledger.began(seq, Alert(KEY, seq, "words"))
        elif what == "ended":
            ledger = ledger.ended(seq, KEY)
        elif what == "told" and (due := ledger.untold()):
            alert, moment = due[0]
            said.append((alert.number, moment))
            ledger = ledger.settle(seq, alert.number, moment)
        assert len(ledger.open()) <= 1
    assert len(said) == len(set(said))
    for number in {number for number, _ in said}:
        moments = [moment for each, moment in said if each == number]
        assert moments == [Moment.BEGAN, Moment.ENDED][: len(moments)]
    while due := ledger.untold():
        ledger = ledger.settle(seq, due[0][0].number, due[0][1])
    assert set(ledger.alerts) == {alert.number for alert in ledger.open().values()}
