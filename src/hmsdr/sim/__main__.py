"""``python -m hmsdr.sim``: many seeds on all cores, one seed as a story, or every breakage until it is caught.

Exit status 0 when nothing was found (with --breakages: when everything was caught), 1 else, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from hmsdr.sim.breakages import BREAKAGES, Breakage
from hmsdr.sim.faults import Scenario, draw
from hmsdr.sim.run import FIGURES, bound, simulate

_CHUNK = 100
_SHOWN = 20


@dataclass
class Chunk:
    """What a row of seeds gave."""

    seeds: int = 0
    found: list[tuple[int, str, str]] = field(default_factory=list)
    """Seed, scenario, and what was found."""
    seconds: list[float] = field(default_factory=list)
    events: int = 0
    failed_over: list[float] = field(default_factory=list)
    scenarios: Counter[str] = field(default_factory=Counter)


def run_chunk(first: int, count: int, breakage: str = "", *, stop: bool = False) -> Chunk:
    """Simulate `count` seeds from `first`; with `stop`, no further than the first that finds something."""
    broken = next((each for each in BREAKAGES if each.name == breakage), None)
    if broken is None:
        return _run(first, count, stop=stop)
    with broken.applied():
        return _run(first, count, stop=stop, only=broken.scenario)


def _run(first: int, count: int, *, stop: bool, only: Scenario | None = None) -> Chunk:
    chunk = Chunk()
    gc.collect()
    gc.freeze()  # what is there by now stays: after each seed only what that one left behind is looked through
    for seed in range(first, first + count):
        gc.collect()
        chunk.seeds += 1
        if only is not None and draw(seed).scenario is not only:
            continue
        try:
            outcome = simulate(seed)
        except Exception as error:  # noqa: BLE001 - a checker or a world that crashes means unknown, never well
            chunk.found.append((seed, "unknown", f"crashed: {type(error).__name__}: {error}"))
        else:
            chunk.seconds.append(outcome.seconds)
            chunk.events += outcome.events
            chunk.scenarios[outcome.scenario] += 1
            if outcome.failed_over is not None:
                chunk.failed_over.append(outcome.failed_over)
            chunk.found += [
                (seed, outcome.scenario, f"{each.name}: {each.text}") for each in outcome.violations
            ]
        if stop and chunk.found:
            break
    return chunk


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m hmsdr.sim", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=_count, default=2000, help="how many (default 2000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seed", type=int, help="only this one, told as a story")
    parser.add_argument(
        "--breakage", choices=[each.name for each in BREAKAGES], help="with this rule left out"
    )
    parser.add_argument("--breakages", action="store_true", help="each rule left out, until it is caught")
    parser.add_argument(
        "--jobs", type=_count, default=os.cpu_count() or 1, help="processes (default: one per core)"
    )
    wanted = parser.parse_args(arguments)
    if wanted.seed is not None:
        return _story(wanted.seed, wanted.breakage)
    with ProcessPoolExecutor(wanted.jobs) as pool:
        if wanted.breakages:
            return _breakages(pool, wanted.seeds, wanted.jobs)
        return _many(pool, wanted.first, wanted.seeds, wanted.breakage or "")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _story(seed: int, breakage: str | None) -> int:
    broken = next((each for each in BREAKAGES if each.name == breakage), None)
    if broken is None:
        outcome = simulate(seed, tell=True)
    else:
        with broken.applied():
            outcome = simulate(seed, tell=True)
    print("\n".join(outcome.history))
    print(f"1 seeds, {len(outcome.violations)} violations")
    return 1 if outcome.violations else 0


def _many(pool: ProcessPoolExecutor, first: int, seeds: int, breakage: str) -> int:
    began = time.monotonic()
    total = Chunk()
    starts = range(first, first + seeds, _CHUNK)
    counts = [min(_CHUNK, first + seeds - start) for start in starts]
    for chunk in pool.map(run_chunk, starts, counts, [breakage] * len(counts)):
        for seed, scenario, text in islice(chunk.found, max(0, _SHOWN - len(total.found))):
            left_out = f" BREAKAGE={breakage}" if breakage else ""
            print(f"seed {seed} ({scenario}): {text}\n    replay: make simulate SEED={seed}{left_out}")
        total.seeds += chunk.seeds
        total.found += chunk.found
        total.seconds += chunk.seconds
        total.events += chunk.events
        total.failed_over += chunk.failed_over
        total.scenarios += chunk.scenarios
        if sys.stderr.isatty():
            print(f"\r{total.seeds} of {seeds} seeds, {len(total.found)} found", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for line in _figures(total, time.monotonic() - began):
        print(line)
    print(f"{total.seeds} seeds, {len(total.found)} violations")
    return 1 if total.found else 0


def _figures(total: Chunk, seconds: float) -> Iterator[str]:
    yield "scenarios: " + ", ".join(f"{count} {name}" for name, count in total.scenarios.most_common())
    if total.seconds:
        milliseconds = statistics.median(total.seconds) * 1000
        yield (
            f"a seed: {milliseconds:.1f} ms median, {max(total.seconds) * 1000:.0f} ms at most, "
            f"{total.events // len(total.seconds)} events; all: {seconds:.0f} s"
        )
    if total.failed_over:
        once, twice = bound(FIGURES), bound(FIGURES, successors=1)
        longer = sum(took > once for took in total.failed_over)
        yield (
            f"outage to first write on the other side: {statistics.median(total.failed_over):.1f} s median, "
            f"{max(total.failed_over):.1f} s at most (bound {once:.1f} s, hold-down {FIGURES.hold_down:g} s; "
            f"longer only with a leader lost on the way, then {twice:.1f} s: {longer} of {len(total.failed_over)})"
        )


def _breakages(pool: ProcessPoolExecutor, seeds: int, jobs: int) -> int:
    caught = 0
    for breakage in BREAKAGES:
        found, needed = _catch(pool, breakage, seeds, jobs)
        caught += found is not None
        what = f"seed {found[0]}: {found[2].split(':')[0]}" if found else "NOT CAUGHT"
        print(
            f"rule {breakage.rule:<5} {breakage.name:<24} {what} ({needed} seeds)  {breakage.text}",
            flush=True,
        )
    print(f"caught {caught} of {len(BREAKAGES)}")
    return 0 if caught == len(BREAKAGES) else 1


def _catch(
    pool: ProcessPoolExecutor, breakage: Breakage, seeds: int, jobs: int
) -> tuple[tuple[int, str, str] | None, int]:
    """The first seed that finds it, and how many were needed: chunks in order, as many at once as there are jobs."""
    at = 0
    while at < seeds:
        starts = [start for start in range(at, at + jobs * _CHUNK, _CHUNK) if start < seeds]
        futures = [
            pool.submit(run_chunk, start, min(_CHUNK, seeds - start), breakage.name, stop=True)
            for start in starts
        ]
        for start, future in zip(starts, futures, strict=True):
            chunk = future.result()
            if chunk.found:
                return chunk.found[0], start + chunk.seeds
        at += jobs * _CHUNK
    return None, seeds


if __name__ == "__main__":
    sys.exit(main())
