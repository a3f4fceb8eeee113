"""Whether a share of users may stay where it was sent: what both regions' figures say, against limits and what was before (SW-3). Pure.

Four verdicts. *Bad*: the region that users are sent to is worse than allowed, and the other one is not: users go back. *Hold*: it
cannot be known, or going back would not help: nothing moves. *Wait*: not long enough, not enough requests, or the split has not
arrived. *Good*: all of it was seen, for the whole time. What cannot be judged is never good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hmsdr.playbook.procedures import Switchback

_ERRORS_TO_BELIEVE = 3
"""Fewer of them are nobody's trend."""
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Verdict(StrEnum):
    """What follows."""

    GOOD = "good"
    WAIT = "wait"
    HOLD = "hold"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Reading:
    """One region's figures over a window that ends now; None or not a number is what nobody knows.

    ``at`` is the time that Prometheus answered about, ``measured`` when the region was measured last, both in unix seconds; latency
    in seconds by the names of `QUANTILES`.
    """

    requests: float | None
    errors: float | None
    saturation: float | None
    up: float | None
    at: float
    measured: float | None
    latency: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Baseline:
    """How it was before the first step: the part of requests that failed, and seconds by the names of `QUANTILES`."""

    error_ratio: float
    latency: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Moment:
    """What is judged: the region that users are sent to and its share of them in per cent, the other region, and the time.

    ``now`` in unix seconds by our own clock; ``held`` seconds since the last resolver let go of the older share.
    """

    home: str
    other: str
    share: int
    now: float
    held: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, and why in words; ``arrived`` is the share of requests in per cent that the region really answered."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    arrived: float | None = None


def judge(
    home: Reading | str,
    other: Reading | str,
    moment: Moment,
    limits: Switchback,
    *,
    fresh: float,
    baseline: Baseline | None,
) -> Judgement:
    """The verdict.

    Args:
        home: figures of the region that users are sent to, or why there are none.
        other: those of the region that they come from.
        moment: what is judged, and when.
        limits: the playbook's.
        fresh: seconds by which a figure's time may differ from ours.
        baseline: what was before; None before it was taken: then the absolute limits alone count.
    """
    blind = [
        words
        for name, reading in ((moment.home, home), (moment.other, other))
        for words in _blind(name, reading, moment.now, fresh)
    ]
    if blind or isinstance(home, str) or isinstance(other, str):
        return Judgement(Verdict.HOLD, tuple(blind))
    sides = ((moment.home, home, moment.share), (moment.other, other, 100 - moment.share))
    arrived = _arrived(home, other)
    bad = {name: _bad(name, reading, limits, baseline) for name, reading, _ in sides}
    if bad[moment.other]:
        stays = (
            (f"users are not sent back to {moment.other} while it is no better",) if bad[moment.home] else ()
        )
        return Judgement(Verdict.HOLD, (*bad[moment.home], *bad[moment.other], *stays), arrived)
    if bad[moment.home]:
        return Judgement(Verdict.BAD, tuple(bad[moment.home]), arrived)
    unknown = [
        f"no {what} of {name}"
        for name, reading, share in sides
        if share > 0 and _enough(reading, limits)
        for what in _unknown(reading)
    ]
    if unknown:
        return Judgement(Verdict.HOLD, tuple(unknown), arrived)
    waits = [
        *_few(sides, limits),
        *([] if arrived is None else _split(arrived, moment, limits)),
    ]
    left = limits.hold.total_seconds() - moment.held
    if left > 0:
        waits.insert(0, f"{left:.0f} s more at {moment.share} %")
    return Judgement(Verdict.WAIT if waits else Verdict.GOOD, tuple(waits), arrived)


def as_baseline(reading: Reading) -> Baseline:
    """What a reading that was judged good is remembered as."""
    latency = {name: value for name, value in reading.latency.items() if _known(value) and value is not None}
    return Baseline(_ratio(reading) or 0.0, latency)


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _blind(name: str, reading: Reading | str, now: float, fresh: float) -> list[str]:
    """Why nothing can be said of a region."""
    if isinstance(reading, str):
        return [f"no figures of {name}: {reading}"]
    if abs(reading.at - now) > fresh:
        return [f"Prometheus answers about a time {abs(reading.at - now):.0f} s away from ours"]
    if reading.measured is None or not math.isfinite(reading.measured):
        return [f"Prometheus knows nothing of {name}"]
    if abs(now - reading.measured) > fresh:
        return [f"the newest figures of {name} are {now - reading.measured:.0f} s old"]
    missing = [
        what
        for what, value in (
            ("requests", reading.requests),
            ("errors", reading.errors),
            ("`up`", reading.up),
        )
        if not _known(value)
    ]
    return [f"Prometheus gives no {', '.join(missing)} of {name}"] if missing else []


def _unknown(reading: Reading) -> list[str]:
    """Figures that a region with requests must have."""
    lacking = [f"latency {name}" for name in QUANTILES if not _known(reading.latency.get(name))]
    return [*lacking, *([] if _known(reading.saturation) else ["saturation"])]


def _ratio(reading: Reading) -> float | None:
    requests, errors = reading.requests or 0.0, reading.errors or 0.0
    return errors / requests if requests > 0 else None


def _enough(reading: Reading, limits: Switchback) -> bool:
    return (reading.requests or 0.0) >= limits.requests


def _bad(name: str, reading: Reading, limits: Switchback, baseline: Baseline | None) -> list[str]:
    """The signals that say that the region is worse than allowed."""
    found = []
    if reading.up is not None and reading.up < 1:
        found.append(f"{name} does not answer who measures it (up is {reading.up:g})")
    ratio = _ratio(reading)
    if ratio is not None and (reading.errors or 0.0) >= _ERRORS_TO_BELIEVE:
        before = 0.0 if baseline is None else baseline.error_ratio
        allowed = (
            limits.error_ratio if baseline is None else min(limits.error_ratio, before + limits.error_rise)
        )
        if ratio > allowed:
            found.append(
                f"error rate of {name} is {100 * ratio:.1f} % ({reading.errors:.0f} of {reading.requests:.0f} "
                f"requests), allowed are {100 * allowed:.1f} %, before it was {100 * before:.1f} %"
            )
    if _enough(reading, limits):
        found += _slow(name, reading, limits, baseline)
    if _known(reading.saturation) and (reading.saturation or 0.0) > limits.saturation:
        found.append(f"saturation of {name} is {reading.saturation:.2f}, allowed are {limits.saturation:g}")
    return found


def _slow(name: str, reading: Reading, limits: Switchback, baseline: Baseline | None) -> list[str]:
    found = []
    most = {"p50": limits.latency_p50, "p95": limits.latency_p95, "p99": limits.latency_p99}
    for quantile, limit in most.items():
        value = reading.latency.get(quantile)
        if value is None or not math.isfinite(value):
            continue
        allowed, told = limit.total_seconds(), ""
        before = None if baseline is None else baseline.latency.get(quantile)
        if before is not None:
            relative = max(limits.latency_floor.total_seconds(), limits.latency_factor * before)
            allowed, told = min(allowed, relative), f", before it was {1000 * before:.0f} ms"
        if value > allowed:
            found.append(
                f"latency {quantile} of {name} is {1000 * value:.0f} ms, allowed are {1000 * allowed:.0f} ms{told}"
            )
    return found


def _few(sides: Sequence[tuple[str, Reading, int]], limits: Switchback) -> list[str]:
    return [
        f"{limits.requests} requests of {name} to judge by (so far {reading.requests or 0.0:.0f})"
        for name, reading, share in sides
        if share > 0 and not _enough(reading, limits)
    ]


def _arrived(home: Reading, other: Reading) -> float | None:
    whole = (home.requests or 0.0) + (other.requests or 0.0)
    return 100 * (home.requests or 0.0) / whole if whole > 0 else None


def _split(arrived: float, moment: Moment, limits: Switchback) -> list[str]:
    if abs(arrived - moment.share) <= limits.split_tolerance:
        return []
    return [f"{moment.share} % of requests to arrive at {moment.home} (now {arrived:.0f} %)"]
