"""A sender in a process of its own, for tests that kill it: sends what the outbox of a log holds until it is killed."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from hmsdr.incident.post import Post
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load

UNHEARD_SECONDS = 3.0


async def main(playbook: Path, name: str) -> None:
    """Send, for ever."""
    loaded = load(playbook, secrets=True)
    store = await SqliteStore.open(Path(loaded.store.path))
    post = Post(loaded, store, name, at_once=4, unheard=timedelta(seconds=UNHEARD_SECONDS))
    while True:
        if not await post.deliver():
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
