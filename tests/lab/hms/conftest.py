"""A template database, made once for each worker, and a hospital that uses copies of it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

sys.path.append(str(Path(__file__).parent))

from region import Front
from servers import Hospital, NameServer, free_network, make_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("hms"))


@pytest_asyncio.fixture
async def hospital(tmp_path: Path, template: Path) -> AsyncIterator[Hospital]:
    """Nothing runs in it but a name server; what a test starts is killed afterwards."""
    net = free_network()
    names = NameServer(f"{net}.53")
    await names.start()
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=4))
    made = Hospital(template, tmp_path / "hms", net, names, session)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def front(hospital: Hospital) -> AsyncIterator[Front]:
    """The hospital with the APIs of both regions up, and no ingress yet."""
    made = Front(hospital)
    for api in made.apis.values():
        await api.start()
    yield made
    await made.close()
