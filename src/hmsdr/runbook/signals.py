"""What Prometheus knows of a region's users: the playbook's expressions asked at once. It reads; what that means is decide/'s part."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from string import Template
from typing import TYPE_CHECKING

from hmsdr.decide.shifting import QUANTILES, Reading
from hmsdr.drivers.errors import DriverError
from hmsdr.runbook.systems import Systems

if TYPE_CHECKING:  # the driver costs a command a seventh of its start: it is imported when it is used
    from hmsdr.drivers.prometheus import Sample

_ASK_SECONDS = 3.0


async def readings(
    systems: Systems, home: str, other: str, window: float
) -> tuple[Reading | str, Reading | str]:
    """Both regions' figures over the last `window` seconds; a text is why there are none."""
    first, second = await asyncio.gather(_read(systems, home, window), _read(systems, other, window))
    return first, second


async def _read(systems: Systems, region: str, window: float) -> Reading | str:
    signals = systems.playbook.prometheus.signals
    values = {"region": region, "window": f"{max(1, round(window))}s"}
    asked = {
        "requests": filled(signals.requests, values),
        "errors": filled(signals.errors, values),
        "saturation": filled(signals.saturation, values),
        "up": filled(signals.up, values),
        "measured": filled(signals.measured, values),
        **{
            name: filled(signals.latency, {**values, "quantile": f"{quantile:g}"})
            for name, quantile in QUANTILES.items()
        },
    }
    prometheus = systems.prometheus()
    try:
        answers = await asyncio.gather(
            *(prometheus.query(expression, deadline=_ASK_SECONDS) for expression in asked.values())
        )
    except DriverError as error:
        return error.found
    found = dict(zip(asked, answers, strict=True))
    several = [name for name, samples in found.items() if len(samples) > 1]
    if several:
        return f"`prometheus.signals` gives several numbers for {', '.join(several)}: each must give one"
    times = [sample.at for samples in found.values() for sample in samples]
    if not times:
        return "Prometheus's answers are empty"
    return Reading(
        requests=_one(found["requests"]),
        errors=_one(found["errors"]),
        saturation=_one(found["saturation"]),
        up=_one(found["up"]),
        # The one that is furthest from the others tells of an answer about another time as well.
        at=min(times),
        measured=_one(found["measured"]),
        latency={name: _one(found[name]) for name in QUANTILES},
    )


def filled(expression: str, values: Mapping[str, str]) -> str:
    """The expression for one region and window."""
    return Template(expression).safe_substitute(values)


def _one(samples: tuple[Sample, ...]) -> float | None:
    return samples[0].value if samples else None
