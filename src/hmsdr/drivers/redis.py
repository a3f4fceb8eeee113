"""Redis: what role a server has, and the two orders that change it. The cache may be lost by policy (SAFETY rule 13).

One server at a time, each call with a deadline in seconds; it holds no policy of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import redis.asyncio
from redis import exceptions as vendor
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from hmsdr.drivers.errors import DriverError, OutcomeUnknownError, PermanentError, TemporaryError
from hmsdr.playbook.topology import RedisInstance

_T = TypeVar("_T")
_Client = redis.asyncio.Redis
_TEST_KEY = "hmsdr:write-test"
_TEST_SECONDS = 60


@dataclass(frozen=True, slots=True)
class RedisReplication:
    """INFO replication. ``role`` is ``master`` or ``slave``, Redis's own words; offsets in bytes.

    ``link_up``, ``master_host`` and ``master_port`` are None on a master.
    """

    role: str
    link_up: bool | None
    master_host: str | None
    master_port: int | None
    offset: int
    followers: int
    sync_in_progress: bool


class Redis:
    """One Redis server. The connection is opened at the first call, and again when it broke."""

    def __init__(self, instance: RedisInstance) -> None:
        self.instance = instance
        self._client: _Client | None = None

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def role(self, *, deadline: float) -> str:
        """``master`` or ``slave``."""
        return (await self.info_replication(deadline=deadline)).role

    async def info_replication(self, *, deadline: float) -> RedisReplication:
        """Its part in replication.

        Raises:
            TemporaryError: it does not answer, or is loading.
            PermanentError: it refuses us.
        """

        async def ask(client: _Client) -> RedisReplication:
            return _replication(await client.info("replication"))

        return await self._call("reading INFO replication", ask, deadline, changes=False)

    async def promote(self, *, flush: bool, deadline: float) -> None:
        """REPLICAOF NO ONE; a server that was promoted by this is flushed first when `flush`.

        Repeating it changes nothing: what a master has written since its promotion is never flushed.

        Raises:
            OutcomeUnknownError: an answer was lost; look at the role before trying again.
        """

        async def promote(client: _Client) -> None:
            if _replication(await client.info("replication")).role == "master":
                return
            # A transaction would be refused: FLUSHALL may not even be queued while the server is a replica. Sent as
            # one packet the two are executed in a row, before Redis looks at any other client.
            async with client.pipeline(transaction=False) as pipe:
                pipe.execute_command("REPLICAOF", "NO", "ONE")
                if flush:
                    pipe.execute_command("FLUSHALL", "ASYNC")
                await pipe.execute()

        await self._call("promoting", promote, deadline, changes=True)

    async def replicate_from(self, host: str, port: int, *, deadline: float) -> None:
        """REPLICAOF `host` `port`: it drops what it has and follows. Repeating it changes nothing."""

        async def follow(client: _Client) -> None:
            found = _replication(await client.info("replication"))
            if (found.role, found.master_host, found.master_port) != ("slave", host, port):
                await client.replicaof(host, str(port))

        await self._call(f"making it follow {host}:{port}", follow, deadline, changes=True)

    async def write_test(self, *, deadline: float) -> None:
        """Write and read back one short-lived key: the proof that it takes writes.

        Raises:
            TemporaryError: it is a replica, or does not answer.
        """

        async def write(client: _Client) -> None:
            await client.set(_TEST_KEY, "1", ex=_TEST_SECONDS)
            if await client.get(_TEST_KEY) is None:
                raise vendor.DataError("the key that was just written is not there")

        await self._call("writing a test key", write, deadline, changes=True)

    async def _call(
        self, doing: str, call: Callable[[_Client], Awaitable[_T]], deadline: float, *, changes: bool
    ) -> _T:
        what = f"{doing} at Redis {self.instance.host}:{self.instance.port}"
        try:
            async with asyncio.timeout(deadline):
                return await call(self._opened(deadline))
        except (vendor.RedisError, OSError, TimeoutError) as error:
            raise _translate(what, error, deadline=deadline, changes=changes) from error

    def _opened(self, deadline: float) -> _Client:
        if self._client is None:
            password = self.instance.password
            self._client = redis.asyncio.Redis(
                host=self.instance.host,
                port=self.instance.port,
                password=password.get_secret_value() if password is not None else None,
                socket_connect_timeout=max(deadline, 5.0),
                decode_responses=True,
                client_name="hmsdr",
                retry=Retry(NoBackoff(), 0),  # trying again is the caller's to decide
            )
        return self._client


def _replication(info: dict[str, Any]) -> RedisReplication:
    role = str(info["role"])
    follows = role != "master"
    return RedisReplication(
        role=role,
        link_up=info.get("master_link_status") == "up" if follows else None,
        master_host=str(info["master_host"]) if follows else None,
        master_port=int(info["master_port"]) if follows else None,
        offset=int(info.get("slave_repl_offset" if follows else "master_repl_offset", 0)),
        followers=int(info.get("connected_slaves", 0)),
        sync_in_progress=bool(info.get("master_sync_in_progress", 0)),
    )


def _translate(what: str, error: BaseException, *, deadline: float, changes: bool) -> DriverError:
    found = f"no answer within {deadline:g} s" if isinstance(error, TimeoutError) else str(error)
    if isinstance(error, vendor.AuthenticationError | vendor.AuthorizationError | vendor.NoPermissionError):
        return PermanentError(what, found, "Check the password in the playbook and the user's rights")
    if isinstance(error, vendor.ReadOnlyError):
        return TemporaryError(what, "it is a replica, read-only", "Promote it first, or ask the master")
    if isinstance(error, vendor.BusyLoadingError):
        return TemporaryError(what, "it is loading its data", "Wait until it has, then try again")
    refused = "connecting to" in found  # the client's words for a connection that was never there
    if isinstance(error, vendor.ConnectionError | vendor.TimeoutError | OSError | TimeoutError):
        if changes and not refused:
            return OutcomeUnknownError(what, found, "Look at its role before trying again")
        return TemporaryError(what, found, "Check that the server is up and reachable, then try again")
    return PermanentError(what, found, "Read what the server says; trying again the same way cannot help")
