"""The Redis driver against two real servers: promotion, following, and what failure looks like."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio
from hospital import free_network, until

from hmsdr.drivers.errors import OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.drivers.redis import Redis
from hmsdr.lab.binaries import find
from hmsdr.playbook.topology import RedisInstance


@dataclass
class Pair:
    primary: Redis
    replica: Redis
    processes: dict[str, subprocess.Popen[bytes]]

    async def streaming(self) -> bool:
        return (await self.replica.info_replication(deadline=2)).link_up is True

    def client(self, driver: Redis) -> redis.asyncio.Redis:
        return redis.asyncio.Redis(host=driver.instance.host, port=6379, decode_responses=True)


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    net = free_network()
    drivers, processes = [], {}
    for host in (f"{net}.11", f"{net}.12"):
        place = tmp_path / host
        place.mkdir()
        options = [
            "--bind",
            host,
            "--port",
            "6379",
            "--dir",
            str(place),
            "--save",
            "",
            "--protected-mode",
            "no",
        ]
        processes[host] = subprocess.Popen(  # noqa: ASYNC220 - a fork, not a wait
            [find("redis-server"), *options, "--repl-diskless-sync-delay", "0"], stdout=subprocess.DEVNULL
        )
        drivers.append(Redis(RedisInstance(host=host, service_host=host, statefulset="redis")))
    pair = Pair(drivers[0], drivers[1], processes)
    for driver in drivers:
        await until("redis up", partial(driver.role, deadline=2))
    await pair.replica.replicate_from(drivers[0].instance.host, 6379, deadline=5)
    await until("streaming", pair.streaming)
    yield pair
    for driver in drivers:
        await driver.close()
    for process in processes.values():
        process.kill()
        process.wait()


@pytest.mark.req("RD-1", "RD-3")
async def test_a_replica_is_promoted_and_flushed_once(pair: Pair) -> None:
    async with pair.client(pair.primary) as client:
        await client.set("session", "old")
    info = await pair.replica.info_replication(deadline=2)
    assert (info.role, info.link_up, info.master_host) == ("slave", True, pair.primary.instance.host)
    with pytest.raises(TemporaryError, match="read-only"):
        await pair.replica.write_test(deadline=2)
    await pair.replica.promote(flush=True, deadline=5)
    assert await pair.replica.role(deadline=2) == "master"
    async with pair.client(pair.replica) as client:
        assert await client.get("session") is None
        await client.set("session", "new")
        await pair.replica.promote(flush=True, deadline=5)  # delivered again
        assert await client.get("session") == "new"
    await pair.replica.write_test(deadline=2)


@pytest.mark.req("RD-1")
async def test_without_a_flush_the_cache_is_kept(pair: Pair) -> None:
    async with pair.client(pair.primary) as client:
        await client.set("session", "old")
        await client.wait(1, 2000)
    await pair.replica.promote(flush=False, deadline=5)
    async with pair.client(pair.replica) as client:
        assert await client.get("session") == "old"


async def test_following_is_repeated_without_effect(pair: Pair) -> None:
    for _ in range(2):
        await pair.replica.replicate_from(pair.primary.instance.host, 6379, deadline=5)
    assert await pair.streaming()
    assert (await pair.primary.info_replication(deadline=2)).followers == 1


async def test_a_dead_server_is_temporary_and_a_frozen_one_unknown(pair: Pair) -> None:
    process = pair.processes[pair.replica.instance.host]
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(OutcomeUnknownError, match=r"within 0\.5 s"):
        await pair.replica.promote(flush=True, deadline=0.5)
    with pytest.raises(TemporaryError, match=r"within 0\.5 s"):
        await pair.replica.role(deadline=0.5)
    process.kill()
    await asyncio.to_thread(process.wait)
    await pair.replica.close()
    with pytest.raises(TemporaryError, match="Check that the server is up"):
        await pair.replica.promote(flush=True, deadline=2)


async def test_a_wrong_password_is_permanent(pair: Pair) -> None:
    async with pair.client(pair.primary) as client:
        await client.config_set("requirepass", "secret")
    stranger = Redis(pair.primary.instance)
    with pytest.raises(PermanentError, match="Check the password"):
        await stranger.role(deadline=2)
    await stranger.close()
