"""S3 for tests, a template database, and a bank of backups that the tests of one module share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from bank import Bank, Opened, open_bank
from hospital import make_template
from moto.server import ThreadedMotoServer

from hmsdr.drivers.s3 import ObjectStore


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The object store's address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("pg"))


@pytest_asyncio.fixture
async def open_banks(tmp_path: Path, template: Path, s3: str) -> AsyncIterator[Opened]:
    """Opens banks; all of them are gone afterwards."""
    opened: list[Bank] = []

    async def make(*, endpoint: str = s3, **policy: object) -> Bank:
        place = tmp_path / f"b{len(opened)}"
        place.mkdir()
        opened.append(await open_bank(place, template, endpoint, **policy))
        return opened[-1]

    yield make
    for each in opened:
        await each.close()


@pytest.fixture(scope="module")
def shared_bank(tmp_path_factory: pytest.TempPathFactory, template: Path, s3: str) -> Iterator[Bank]:
    """A bank with a backup, patients admitted since, and all of it archived; tests leave it as it was."""
    place = tmp_path_factory.mktemp("bank")

    async def fill() -> Bank:
        bank = await open_bank(place, template, s3, compression="gzip")
        await bank.both()
        await bank.admit()
        made = await bank.back_up()
        assert not made.problems
        for _ in range(3):
            await bank.admit()
            await bank.archived()
        await bank.objects.close()
        return bank

    bank = asyncio.run(fill())
    yield bank
    asyncio.run(bank.close())


@pytest_asyncio.fixture
async def full_bank(shared_bank: Bank) -> AsyncIterator[Bank]:
    """The shared bank, with a connection to the object store of the test's own."""
    shared_bank.objects = ObjectStore(shared_bank.playbook.aws)
    yield shared_bank
    await shared_bank.objects.close()
