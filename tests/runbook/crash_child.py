"""Runs one plan in a process that is to be killed: ``crash_child.py STORE PLAN RUN CRASH_AT before|after``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hmsdr.log.sqlite import SqliteStore
from hmsdr.runbook.plan import Plan
from hmsdr.runbook.runner import Runner

sys.path.insert(0, str(Path(__file__).parent))
from support import CATALOGUE, NO_SYSTEMS, CrashingLog


async def main(store: str, plan: str, run: str, crash_at: str, when: str) -> None:
    """Start or go on with the run."""
    opened = await SqliteStore.open(Path(store))
    log = CrashingLog(opened, int(crash_at), before=when == "before")
    runner = Runner(log, NO_SYSTEMS, CATALOGUE, run)
    if await opened.read(subject=run):
        await runner.resume()
    else:
        await runner.start(Plan.model_validate_json(Path(plan).read_text()), "tester", {})
    await opened.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
