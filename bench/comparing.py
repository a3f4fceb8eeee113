"""`hmsdr`'s comparison of a primary with its standby, beside `SELECT count(*)` over the same table on both at once. Measures only.

The same pair of servers, in turn. The count is what a person would type, with PostgreSQL's own parallel workers, once as it reads the
table (which is the work that comparing cannot do without), and once as its planner likes it best, which is to read only the primary key's index. The
comparison runs in a process of its own, unbounded in its rate; its memory is the kernel's high-water mark, at two sizes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, LiteralString

from bench.memory import peak_mb
from bench.pair import Pair, connect
from hmsdr.errors import FailedError
from hmsdr.lab.layout import Endpoint
from hmsdr.lab.processes import DIE_WITH_PARENT
from hmsdr.playbook.topology import PostgresInstance
from hmsdr.runbook.comparing import MIB, Comparison

SIZES = (128, 1024)
"""MiB."""
JOBS = 2
_SECONDS = 600.0


def measure(place: Path, rounds: int) -> dict[str, Any]:
    """`rounds` of both at each size; who goes first changes from round to round.

    Raises:
        FailedError: the servers do not come up, or are found unequal.
    """
    found: dict[str, Any] = {"sizes": {}}
    pair = Pair(place / "comparing")
    try:
        pair.up()
        for size in SIZES:
            rows = pair.fill(size)
            counts: list[float] = []
            indexed: list[float] = []
            told: list[dict[str, float]] = []
            for number in range(1, rounds + 1):
                for kind in ("count", "compare") if number % 2 else ("compare", "count"):
                    if kind == "count":
                        counts.append(_count(pair, "SET enable_indexonlyscan = off"))
                        indexed.append(_count(pair))
                    else:
                        told.append(_compared(pair, rows))
                print(
                    f"  {size} MiB, round {number} of {rounds}: count {counts[-1]:.2f} s, "
                    f"compare {told[-1]['seconds']:.2f} s, {told[-1]['memory_mb']:.0f} MB",
                    flush=True,
                )
            found["sizes"][size] = {
                "count_seconds": counts,
                "index_count_seconds": indexed,
                "compare_seconds": [each["seconds"] for each in told],
                "memory_mb": [each["memory_mb"] for each in told],
            }
    finally:
        pair.down()
    return {**found, "load": list(os.getloadavg())}


def _count(pair: Pair, *settings: LiteralString) -> float:
    """Both sides at once; seconds until the later one is done."""

    def one(endpoint: Endpoint) -> None:
        with connect(endpoint) as session:
            for setting in settings:
                session.execute(setting)
            session.execute("SELECT count(*) FROM visits")

    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, (pair.primary, pair.standby)))
    return time.monotonic() - began


def _compared(pair: Pair, rows: int) -> dict[str, float]:
    done = subprocess.run(
        [*DIE_WITH_PARENT, sys.executable, "-m", "bench.comparing"],
        input=json.dumps([pair.primary.port, pair.standby.port]),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise FailedError("comparing", done.stderr.strip()[-500:] or "it failed", "Measure again")
    told: dict[str, float] = json.loads(done.stdout)
    if told["rows"] != rows:
        raise FailedError("comparing", f"{told['rows']} of {rows} rows were seen", "This is a fault of ours")
    return told


def _instance(name: str, port: int) -> PostgresInstance:
    return PostgresInstance(
        instance=name,
        host="127.0.0.1",
        port=port,
        service_host="127.0.0.1",
        database="postgres",
        statefulset=name,
        slot=name,
    )


async def _compare(primary: int, standby: int) -> dict[str, float]:
    sides = (_instance("primary", primary), _instance("standby", standby))
    found = await Comparison(*sides, rate=0, jobs=JOBS).run(deadline=_SECONDS)
    if not found.equal:
        raise FailedError("comparing", "; ".join(each.words() for each in found.differences), "Measure again")
    return {
        "seconds": found.seconds,
        "mib": found.bytes / MIB,
        "rows": sum(each.rows for each in found.sums.values()),
        "memory_mb": peak_mb(os.getpid()),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_compare(*json.loads(sys.stdin.read())))))
