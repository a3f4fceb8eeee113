"""What an agent knows of its database is asked for by many at once: each gets an answer, and a look is one look."""

from __future__ import annotations

import asyncio
from typing import cast

from hmsdr.control.measure import Meter
from hmsdr.drivers.postgres import Postgres
from hmsdr.drivers.postgres_questions import PostgresStatus


class Server:
    """Answers each question after a turn of the event loop: as fast as a server can be, and never at once."""

    def __init__(self) -> None:
        self.asked = 0

    async def status(self, *, deadline: float) -> PostgresStatus:
        self.asked += 1
        await asyncio.sleep(0)
        return PostgresStatus(reachable=True, in_recovery=False, lsn=self.asked, timeline=1)


async def test_whoever_asks_while_the_next_look_begins_gets_an_answer() -> None:
    server = Server()
    meter = Meter(cast("Postgres", server))

    async def asks(times: int, idle: int) -> None:
        for _ in range(times):
            for _ in range(idle):
                await asyncio.sleep(0)
            seen = await meter.glance(primary=True)
            assert seen.lsn is not None
            meter._at = 0.0  # as if the figures were old already: the next one looks anew

    async with asyncio.timeout(30):
        await asyncio.gather(*(asks(200, idle) for idle in range(20)))
    assert server.asked > 100
