"""A site's word that is put again, or an older one, is no sign that the site lives; words of sites that there are not are passed over."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hospital import EAST
from manners import until
from ports import World
from test_endpoints import controller


async def test_a_word_that_is_replayed_makes_nobody_younger(world: World, tmp_path: Path) -> None:
    def word(number: int, life: str = "a") -> dict[str, object]:
        return {"life": life, "number": number, "testimonies": [], "damage": [], "services": []}

    async with controller(world, tmp_path) as (made, _):
        heard = made.standing.words
        await world.store.meet(EAST, word(5))
        await until(lambda: heard.get(EAST, 99.0) < 0.5)
        await world.store.meet("us-east-9", word(1))
        await until(lambda: heard[EAST] > 1)
        for number in (4, 5):
            await world.store.meet(EAST, word(number))
            await asyncio.sleep(0.4)
        assert heard[EAST] > 1.5
        await world.store.meet(EAST, word(6))
        await until(lambda: heard[EAST] < 0.5)
        await until(lambda: heard[EAST] > 1)
        await world.store.meet(EAST, word(1, life="b"))  # it began anew
        await until(lambda: heard[EAST] < 0.5)
        assert "us-east-9" not in heard
