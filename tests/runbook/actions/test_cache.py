"""Asking Redis before anything depends on it, at a real server: master, silent."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from hospital import free_network, until

from hmsdr.drivers.errors import PermanentError, TemporaryError
from hmsdr.lab.binaries import find
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.runbook.action import StepContext
from hmsdr.runbook.actions.cache import PromoteRedis, RedisReady, ReplicateArgs, ReplicateRedis
from hmsdr.runbook.actions.database import RegionArgs
from hmsdr.runbook.systems import Systems

EAST, WEST = "us-east-1", "us-west-2"


@pytest_asyncio.fixture
async def systems(tmp_path: Path) -> AsyncIterator[Systems]:
    """A hospital whose west has a Redis, which follows one that is not there any more; nothing listens in the east."""
    net = free_network()
    process = subprocess.Popen(  # noqa: ASYNC220 - a fork, not a wait
        [
            find("redis-server"), "--bind", f"{net}.12", "--port", "6379", "--dir", str(tmp_path), "--save", "",
            "--protected-mode", "no", "--replicaof", f"{net}.11", "6379",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    regions = {name: {"redis": {"host": f"{net}.{end}"}} for name, end in ((EAST, 11), (WEST, 12))}
    (tmp_path / "playbook.yaml").write_text(yaml.safe_dump({"extends": "hms", "regions": regions}))
    secrets = dict.fromkeys(
        ("HMSDR_POSTGRES_PASSWORD", "HMSDR_AGENT_KEY_US_EAST_1", "HMSDR_AGENT_KEY_US_WEST_2"), "x"
    )
    store = await SqliteStore.open(tmp_path / "store.db", create=True, lease_seconds=4)
    systems = Systems(load(tmp_path / "playbook.yaml", environ=secrets), store)

    async def answers() -> bool:
        try:
            return bool(await systems.redis(WEST).role(deadline=1))
        except TemporaryError:
            return False

    await until("redis up", answers)
    yield systems
    await systems.close()
    await store.close()
    process.kill()
    process.wait(10)


def context(systems: Systems) -> StepContext:
    return StepContext(systems, "run", asyncio.get_running_loop().time() + 5, lambda _: None)


@pytest.mark.req("RD-3")
async def test_a_replica_is_ready_although_its_primary_is_gone(systems: Systems) -> None:
    args = RegionArgs(region=WEST)
    for _ in range(2):  # asking changes nothing
        check = await RedisReady().check(context(systems), args)
        assert check.holds
        assert check.observed == {"role": "slave", "link_up": False}
    await PromoteRedis().act(context(systems), args)
    check = await RedisReady().check(context(systems), args)
    assert (check.holds, check.observed["role"]) == (True, "master")


@pytest.mark.req("RD-3")
async def test_a_redis_that_does_not_answer_is_said_to_be_silent(systems: Systems) -> None:
    with pytest.raises(TemporaryError):
        await RedisReady().check(context(systems), RegionArgs(region=EAST))


@pytest.mark.req("RD-1")
async def test_nobody_follows_a_redis_that_is_silent_or_follows_itself_and_that_is_said_at_once(
    systems: Systems,
) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(TemporaryError):
        await ReplicateRedis().act(context(systems), ReplicateArgs(region=WEST, primary=EAST))
    with pytest.raises(PermanentError, match=f"cache-failover from={EAST} to={WEST}"):
        await ReplicateRedis().act(context(systems), ReplicateArgs(region=EAST, primary=WEST))
    assert asyncio.get_running_loop().time() - began < 3
    assert await systems.redis(WEST).role(deadline=1) == "slave"


def test_by_hand_it_is_one_line(tmp_path: Path, systems: Systems) -> None:
    del tmp_path
    manual = RedisReady().manual(systems.playbook, RegionArgs(region=WEST))
    assert manual.commands == (
        f"redis-cli -h {systems.playbook.regions[WEST].redis.host} -p 6379 INFO replication",
    )
