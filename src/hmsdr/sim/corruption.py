"""The scenario of damage: the active side's data is spoilt, alone or with the standby's, and perhaps its region is lost as well."""

from __future__ import annotations

import random
from collections.abc import Callable

from hmsdr.sim.hospital import Hospital
from hmsdr.sim.world import EAST

_LASTS = 30.0
_NOTED = 12.0
"""Seconds within which everybody has heard of it."""


def drawn(
    dice: random.Random, first: float
) -> tuple[list[tuple[float, str, Callable[[Hospital], None]]], bool, float]:
    """The faults, whether the standby has the damage, too, and when it is over; the first comes not before `first`."""
    begins = first + dice.uniform(1, 4)
    spreads, dies = dice.random() < 0.6, dice.random() < 0.5  # noqa: PLR2004 - in most seeds, in half of them
    what = "an index of east is spoilt, and the WAL" if spreads else "a page on the disk of east is spoilt"
    faults: list[tuple[float, str, Callable[[Hospital], None]]] = [
        (begins, what, lambda hospital: hospital.databases[EAST].damage(spreads=spreads))
    ]
    if spreads and dies:
        faults.append(
            (begins + _NOTED, "the active region dies as well", lambda hospital: hospital.lose(EAST))
        )
    return faults, spreads, begins + _LASTS
