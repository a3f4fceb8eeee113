"""``make bench``: how fast, beside what, and at what cost; printed, and written as JSON.

Rounds alternate on fresh labs in one run, because machines are shared and noisy: ratios are compared, not times.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import comparing, detection, failover, incidents, journal, simulator, switchover, watching
from bench.figures import lines, remarks, rows
from hmsdr.errors import FailedError, HmsdrError

PARTS = ("journal", "incidents", "simulator", "watching", "failover", "detection", "switchover", "comparing")
_DESCRIPTION = (
    "The failover beside its floor, detection, a planned database switchover beside Patroni's, watching many endpoints, "
    "comparing data beside counting them, the journal's cost, the runner's memory, an incident of many events, a seed of the simulator."
)


def main() -> int:
    """Measure, print, write; 0 when every limit holds, 1 when one does not, 2 when it cannot begin."""
    given = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the lab is taken down then, as on Ctrl-C
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        found = _found(given.rounds, given.only)
        (given.out / "bench.json").write_text(json.dumps(found, indent=2) + "\n")
    except HmsdrError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.status
    except OSError as error:
        print(f"bench: writing to {given.out}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: stopped; nothing is left, nothing was written", file=sys.stderr)
        return 130
    table = rows(found)
    print(f"\n{found['machine']}, rounds: {given.rounds}\n")
    print("\n".join([*lines(table), *remarks(found)]))
    print(f"\nEvery round's figures: {given.out / 'bench.json'}")
    return 0 if all(row.holds for row in table) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=_DESCRIPTION)
    parser.add_argument("--rounds", type=_rounds, default=5, help="How often each is measured (default 5).")
    parser.add_argument("--only", choices=PARTS, help="One part of it.")
    parser.add_argument("--out", type=Path, default=Path(".hmsdr/bench"), help="Directory of bench.json.")
    return parser.parse_args()


def _rounds(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds; 1 or more")
    return int(text)


def _found(rounds: int, only: str | None) -> dict[str, Any]:
    try:
        return asyncio.run(_measure(rounds, only))
    except OSError as error:
        at = f"{error.filename}: " if error.filename else ""
        raise FailedError(
            "measuring",
            f"{at}{error.strerror or error}",
            "Nothing was written; report it with the part (--only)",
        ) from error


async def _measure(rounds: int, only: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": _machine(), "rounds": rounds}
    with tempfile.TemporaryDirectory(prefix="hmsdr-bench-") as place:
        if only in (None, "simulator"):
            print(f"The simulator: {simulator.SEEDS} seeds", flush=True)
            found["simulator"] = simulator.measure(rounds)
        if only in (None, "journal"):
            print(f"The journal: {journal.STEPS} empty steps, then as many pairs of bare writes", flush=True)
            found["journal"] = await journal.measure(Path(place), rounds)
        if only in (None, "incidents"):
            print(f"An incident of {incidents.EVENTS} events", flush=True)
            found["incidents"] = await incidents.measure(Path(place), rounds)
        if only in (None, "watching"):
            print(
                f"Watching {', '.join(map(str, watching.COUNTS))} endpoints, {watching.SECONDS:g} s each",
                flush=True,
            )
            found["watching"] = await asyncio.to_thread(watching.measure, rounds)
        if only in (None, "failover"):
            print("The failover: floor and hmsdr in turn, each on a fresh lab", flush=True)
            found["failover"] = await failover.measure(Path(place), rounds)
        if only in (None, "detection"):
            print("Detection: a region lost under controllers at three sites", flush=True)
            found["detection"] = await detection.measure(Path(place), rounds)
        if only in (None, "switchover"):
            print("A planned database switchover: hmsdr and Patroni in turn, each there and back", flush=True)
            found["switchover"] = await switchover.measure(Path(place), rounds)
        if only in (None, "comparing"):
            sizes = " and ".join(f"{size} MiB" for size in comparing.SIZES)
            print(f"Comparing a primary with its standby: {sizes}, beside count(*) on both", flush=True)
            found["comparing"] = await asyncio.to_thread(comparing.measure, Path(place), rounds)
    return found


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
