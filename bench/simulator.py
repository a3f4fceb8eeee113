"""What a seed of the simulator costs: a whole fault schedule from calm to calm, five processes and two databases."""

from __future__ import annotations

import statistics
from typing import Any

from hmsdr.sim.run import simulate

SEEDS = 200


def measure(rounds: int) -> dict[str, Any]:
    """Median milliseconds of a seed, round by round; each round has seeds of its own.

    Raises:
        RuntimeError: a seed found a violation: its time means nothing then.
    """
    medians = []
    for number in range(rounds):
        took = []
        for seed in range(number * SEEDS, (number + 1) * SEEDS):
            outcome = simulate(seed)
            if outcome.violations:
                msg = f"seed {seed} found {outcome.violations[0].name}: make simulate SEED={seed}"
                raise RuntimeError(msg)
            took.append(1000 * outcome.seconds)
        medians.append(statistics.median(took))
    return {"seed_ms": medians}
