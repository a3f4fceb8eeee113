"""`make test`'s second half: all tests on two processes; few failures among those with real servers are tried once more, alone.

Two labs at once can keep two cores so busy that a patience runs out. That is no excuse: a test that passes only when it is alone is
printed last, with what to do about it. Pure tests, and more than a few failures, are never tried again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REAL = ("tests/lab/", "tests/backup/", "tests/control/")
"""Tests of real servers in real time."""
MOST = 3
_FAILED = 1
_CACHE = Path(".pytest_cache/v/cache/lastfailed")
_SPREAD = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")


def main(arguments: Sequence[str]) -> int:
    """Pytest's exit status: of the first try, or of the second one where there is one."""
    _CACHE.unlink(missing_ok=True)
    first = _pytest(*_SPREAD, *arguments)
    failed = _failed() if first == _FAILED else ()
    if not failed or len(failed) > MOST or not all(name.startswith(REAL) for name in failed):
        return first
    print(f"\nOnce more, alone: {', '.join(failed)}", flush=True)
    second = _pytest("-p", "no:cacheprovider", *failed)
    if second == 0:
        print("\nThese failed beside others and passed alone; why stands above. Find the cause and mend it:")
        print("\n".join(f"  FLAKY {name}" for name in failed), flush=True)
    return second


def _pytest(*words: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *words], check=False).returncode


def _failed() -> tuple[str, ...]:
    try:
        return tuple(json.loads(_CACHE.read_text()))
    except (OSError, ValueError):
        return ()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
