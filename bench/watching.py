"""What it costs one process to watch many endpoints: the controller's watch against real servers. Measures only.

The watch runs in a process of its own, which says what it used, so that nothing else is counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

from bench.memory import peak_mb
from hmsdr.control.endpoints import EndpointsWatch
from hmsdr.control.prober import Verdict
from hmsdr.drivers.http import HttpProbe
from hmsdr.errors import FailedError
from hmsdr.lab.processes import DIE_WITH_PARENT
from hmsdr.playbook.endpoints import Endpoint

COUNTS = (500, 1000, 2000)
MOST_ROUNDS = 3
"""Nine measurements of half a minute are enough for a figure that hardly moves."""
INTERVAL_SECONDS = 5.0
TIMEOUT_SECONDS = 2.0
SECONDS = 30.0
"""Measured, after one round in which connections are made."""
_BY = 60.0


def measure(rounds: int) -> dict[str, Any]:
    """CPU share of one core in percent, for each number of endpoints, `rounds` times in turn, at most `MOST_ROUNDS`.

    Raises:
        FailedError: an endpoint was not seen well, or not in its turn: what it cost means nothing then.
    """
    found: dict[int, list[float]] = {count: [] for count in COUNTS}
    memory: dict[int, list[float]] = {count: [] for count in COUNTS}
    asked = []
    rounds = min(rounds, MOST_ROUNDS)
    for number in range(1, rounds + 1):
        for count in COUNTS if number % 2 else COUNTS[::-1]:
            told = _watched(count)
            found[count].append(told["percent"])
            memory[count].append(told["memory_mb"])
            asked.append(told["asked_a_second"] * INTERVAL_SECONDS / count)
            print(
                f"  round {number} of {rounds}: {count:>5} endpoints {told['percent']:5.1f} % of a core",
                flush=True,
            )
    return {
        "interval_seconds": INTERVAL_SECONDS,
        "percent": {str(count): values for count, values in found.items()},
        "memory_mb": {str(count): values for count, values in memory.items()},
        "asked_in_an_interval": asked,
    }


def _watched(count: int) -> dict[str, float]:
    with subprocess.Popen(
        [*DIE_WITH_PARENT, sys.executable, "-m", "bench.endpoints", str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as servers:
        assert servers.stdout is not None  # noqa: S101 - asked for
        try:
            done = subprocess.run(
                [*DIE_WITH_PARENT, sys.executable, "-m", "bench.watching"],
                input=servers.stdout.readline(),
                stdout=subprocess.PIPE,
                timeout=INTERVAL_SECONDS + SECONDS + _BY,
                check=False,
            )
        finally:
            servers.kill()
    if done.returncode != 0:
        raise FailedError(
            f"watching {count} endpoints", done.stdout.decode().strip() or "it failed", "See above"
        )
    told: dict[str, float] = json.loads(done.stdout)
    return told


async def _watch(ports: list[int]) -> dict[str, Any]:
    interval, timeout = timedelta(seconds=INTERVAL_SECONDS), timedelta(seconds=TIMEOUT_SECONDS)
    endpoints = {
        f"endpoint-{port}": Endpoint(
            url=f"http://127.0.0.1:{port}/health", interval=interval, timeout=timeout
        )
        for port in ports
    }
    watch = EndpointsWatch(endpoints, HttpProbe, lambda: True, lambda _: None)
    watching = asyncio.create_task(watch.run())
    try:
        await asyncio.sleep(INTERVAL_SECONDS + 1)
        used, began, asked, skipped = _cpu(), time.monotonic(), watch.asked, watch.skipped
        await asyncio.sleep(SECONDS)
        used, took = _cpu() - used, time.monotonic() - began
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        return {
            "percent": 100 * used / took,
            "memory_mb": peak_mb(os.getpid()),
            "asked_a_second": (watch.asked - asked) / took,
            "skipped": watch.skipped - skipped,
            "silent": len(watch.unseen(now)),
            "verdicts": watch.verdicts(),
        }
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _cpu() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


def main() -> int:
    """Watch the ports given on standard input; 1 when one was not seen well each time."""
    ports = json.loads(sys.stdin.readline())
    told = asyncio.run(_watch(ports))
    print(json.dumps(told))
    well = told["verdicts"] == {str(Verdict.WELL): len(ports)} and not told["skipped"] and not told["silent"]
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
