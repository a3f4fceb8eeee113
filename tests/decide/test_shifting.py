"""Whether a share of users may stay: every verdict, and that nothing unknown is ever waved through."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmsdr.decide.shifting import Baseline, Judgement, Moment, Reading, Verdict, as_baseline, judge
from hmsdr.playbook.procedures import Switchback

LIMITS = Switchback.model_validate({"home_shares": [20, 40, 60, 80, 100], "hold": "5m"})
HOME, OTHER, NOW, FRESH = "us-east-1", "us-west-2", 1_800_000_000.0, 60.0
QUICK = {"p50": 0.01, "p95": 0.05, "p99": 0.09}
WELL = Reading(400, 0, 0.2, 1, NOW, NOW - 5, QUICK)
BASELINE = Baseline(0.0, QUICK)
MOMENT = Moment(HOME, OTHER, 40, NOW, 301)


def judged(
    home: Reading | str = WELL,
    other: Reading | str | None = None,
    moment: Moment = MOMENT,
    baseline: Baseline | None = BASELINE,
) -> Judgement:
    other = replace(WELL, requests=600) if other is None else other
    return judge(home, other, moment, LIMITS, fresh=FRESH, baseline=baseline)


@pytest.mark.req("SW-3")
@pytest.mark.parametrize(
    ("change", "signal"),
    [
        ({"errors": 4}, "error rate of us-east-1 is 1.0 % (4 of 400 requests)"),
        ({"latency": {**QUICK, "p50": 0.6}}, "latency p50 of us-east-1 is 600 ms"),
        (
            {"latency": {**QUICK, "p95": 0.2}},
            "latency p95 of us-east-1 is 200 ms, allowed are 150 ms, before it was 50 ms",
        ),
        ({"latency": {**QUICK, "p99": 2.1}}, "latency p99"),
        ({"latency": {**QUICK, "p99": math.inf, "p95": 5.0}}, "latency p95"),
        ({"saturation": 0.95}, "saturation of us-east-1 is 0.95"),
        ({"up": 0, "requests": 0}, "does not answer who measures it"),
    ],
)
def test_a_bad_signal_goes_back_and_is_named(change: dict[str, Any], signal: str) -> None:
    bad = replace(WELL, **change)
    found = judged(bad)
    assert found.verdict is Verdict.BAD
    assert signal in found.reasons[0]
    # Where users would go back to is no better: they stay, and people are told of both.
    assert judged(bad, replace(bad, requests=600)).verdict is Verdict.HOLD
    other_bad = judged(WELL, replace(bad, requests=600, errors=60))
    assert other_bad.verdict is Verdict.HOLD
    assert all(OTHER in reason for reason in other_bad.reasons)


@pytest.mark.req("SW-3")
@pytest.mark.parametrize(
    "blind",
    [
        "Connection refused",
        replace(WELL, at=NOW - 3600),
        replace(WELL, at=NOW + 3600),
        replace(WELL, measured=NOW - 61),
        replace(WELL, measured=NOW + 61),
        replace(WELL, measured=None),
        replace(WELL, requests=None),
        replace(WELL, errors=math.nan),
        replace(WELL, up=None),
        replace(WELL, saturation=None),
        replace(WELL, latency={}),
        replace(WELL, latency={**QUICK, "p95": math.nan}),
    ],
)
def test_what_is_not_known_is_held(blind: Reading | str) -> None:
    assert judged(blind).verdict is Verdict.HOLD
    assert judged(blind).reasons
    other = blind if isinstance(blind, str) else replace(blind, requests=blind.requests and 600)
    assert judged(WELL, other).verdict is Verdict.HOLD
    assert judged(blind, "Connection refused").verdict is Verdict.HOLD


@pytest.mark.req("SW-2")
def test_it_waits_for_time_requests_and_the_split_that_arrives() -> None:
    assert judged().verdict is Verdict.GOOD
    assert judged(moment=replace(MOMENT, held=299)).reasons == ("1 s more at 40 %",)
    few = judged(replace(WELL, requests=99), replace(WELL, requests=150))
    assert (few.verdict, few.reasons) == (
        Verdict.WAIT,
        ("100 requests of us-east-1 to judge by (so far 99)",),
    )
    split = judged(replace(WELL, requests=200), replace(WELL, requests=800))
    assert split.verdict is Verdict.WAIT
    assert split.reasons == ("40 % of requests to arrive at us-east-1 (now 20 %)",)
    assert split.arrived == 20
    # The last of them: nobody is left at the other side, and nothing is wanted of it but that it can be seen.
    last = judged(other=Reading(0, 0, None, 1, NOW, NOW, {}), moment=replace(MOMENT, share=100))
    assert last.verdict is Verdict.GOOD
    # Two errors are nobody's trend; without a baseline the absolute limits alone count.
    assert judged(replace(WELL, errors=2)).verdict is Verdict.GOOD
    assert judged(replace(WELL, errors=4), baseline=None).verdict is Verdict.GOOD
    assert judged(replace(WELL, errors=5), baseline=None).verdict is Verdict.BAD


figure = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32))
reading = st.builds(
    Reading,
    requests=figure,
    errors=figure,
    saturation=figure,
    up=figure,
    at=st.floats(NOW - 200, NOW + 200),
    measured=st.one_of(st.none(), st.floats(NOW - 200, NOW + 200)),
    latency=st.fixed_dictionaries({"p50": figure, "p95": figure, "p99": figure}),
)


@given(
    home=st.one_of(reading, st.text(max_size=5)),
    other=st.one_of(reading, st.text(max_size=5)),
    share=st.sampled_from([0, 20, 100]),
    held=st.floats(0, 1000),
)
def test_only_what_was_seen_whole_is_good(
    home: Reading | str, other: Reading | str, share: int, held: float
) -> None:
    found = judge(home, other, Moment(HOME, OTHER, share, NOW, held), LIMITS, fresh=FRESH, baseline=BASELINE)
    assert found.reasons or found.verdict is Verdict.GOOD
    if found.verdict is not Verdict.GOOD:
        return
    assert held >= 300
    for each, part in ((home, share), (other, 100 - share)):
        assert isinstance(each, Reading)
        assert abs(each.at - NOW) <= FRESH
        assert each.measured is not None
        assert abs(each.measured - NOW) <= FRESH
        assert each.up is not None
        assert each.up >= 1
        if part:
            assert each.requests is not None
            assert each.requests >= LIMITS.requests
            assert each.saturation is not None
            assert each.saturation <= LIMITS.saturation
            assert all(value is not None and math.isfinite(value) for value in each.latency.values())
            assert (each.errors or 0) < 3 or (each.errors or 0) / each.requests <= LIMITS.error_ratio


def test_what_is_good_now_is_what_later_is_compared_with() -> None:
    assert as_baseline(replace(WELL, errors=2)) == Baseline(0.005, QUICK)
    assert as_baseline(replace(WELL, requests=0, latency={"p50": math.nan})) == Baseline(0.0, {})
