"""A template database, made once for each worker, hospitals made from it, and bare ports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hospital import Hospital, Open, make_template, open_hospital
from ports import World, open_world


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("pg"))


@pytest_asyncio.fixture
async def hospital(tmp_path: Path, template: Path) -> AsyncIterator[Open]:
    """Opens a hospital (`lease="2s"` …); everything of it is killed afterwards."""
    opened: list[Hospital] = []

    async def make(*, lease: str = "30s", check_every: str = "6h") -> Hospital:
        place = tmp_path / f"h{len(opened)}"
        place.mkdir()
        opened.append(await open_hospital(place, template, lease=lease, check_every=check_every))
        return opened[-1]

    yield make
    for each in opened:
        await each.close()


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await open_world(tmp_path)
    yield made
    await made.close()
