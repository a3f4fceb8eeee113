"""A service's use of Redis: a cache and counters that may be lost at any moment. No method ever raises or waits long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hmsdr.lab.hms.names import Names
from hmsdr.lab.layout import Endpoint

_T = TypeVar("_T")
_SECONDS = 0.15
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_KEEP_SECONDS = 30
_CHECK_MILLISECONDS = 5000


@dataclass(frozen=True, slots=True)
class CacheHealth:
    """``role`` is master or slave, None when it does not answer; ``found`` says why it is degraded."""

    degraded: bool
    role: str | None
    found: str

    def as_json(self) -> dict[str, object]:
        """For the health answer."""
        return {
            "status": "degraded" if self.degraded else "ok",
            "role": self.role,
            "found": self.found,
        }


class Cache:
    """One Redis server by name, resolved again whenever it fails."""

    def __init__(self, endpoint: Endpoint, names: Names, owner: str) -> None:
        self._endpoint = endpoint
        self._names = names
        self._owner = owner
        self._client: redis.asyncio.Redis | None = None
        self._pause = _FIRST_PAUSE
        self._rest_until = 0.0

    async def get(self, key: str) -> bytes | None:
        """What is kept under `key`, if anything can be had."""

        async def ask(client: redis.asyncio.Redis) -> bytes | None:
            return cast("bytes | None", await client.get(key))

        return await self._quietly(ask)

    async def keep(self, key: str, value: bytes, *, count: str | None = None) -> None:
        """Keep `value` for a while; add one to the counter `count`."""

        async def write(client: redis.asyncio.Redis) -> None:
            async with client.pipeline(transaction=False) as pipe:
                pipe.set(key, value, ex=_KEEP_SECONDS)
                if count is not None:
                    pipe.incr(count)
                await pipe.execute()

        await self._quietly(write)

    async def check(self) -> CacheHealth:
        """Ask now, whatever happened before: its role, and whether it takes a write."""

        async def ask(client: redis.asyncio.Redis) -> CacheHealth:
            async with client.pipeline(transaction=False) as pipe:
                pipe.execute_command("ROLE")
                pipe.set(f"hms:health:{self._owner}", b"1", px=_CHECK_MILLISECONDS)
                role, written = await pipe.execute(raise_on_error=False)
            if isinstance(role, RedisError):
                raise role
            word = bytes(role[0]).decode()
            refused = str(written) if isinstance(written, RedisError) else ""
            return CacheHealth(bool(refused), word, refused)

        try:
            return await self._call(ask)
        except (RedisError, OSError, TimeoutError) as error:
            return CacheHealth(degraded=True, role=None, found=str(error) or f"no answer in {_SECONDS:g} s")

    async def close(self) -> None:
        """Close its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _quietly(self, call: Callable[[redis.asyncio.Redis], Awaitable[_T]]) -> _T | None:
        """The answer, or None; after a failure it is left alone for a moment, so that requests stay fast."""
        if time.monotonic() < self._rest_until:
            return None
        try:
            return await self._call(call)
        except (RedisError, OSError, TimeoutError):
            self._rest_until = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return None

    async def _call(self, call: Callable[[redis.asyncio.Redis], Awaitable[_T]]) -> _T:
        try:
            async with asyncio.timeout(_SECONDS):
                client = await self._open()
                answer = await call(client)
        except (RedisError, OSError, TimeoutError):
            # A replica that refuses a write may have stopped being what the name means: look it up again.
            self._names.forget(self._endpoint.host)
            await self.close()
            raise
        self._pause, self._rest_until = _FIRST_PAUSE, 0.0
        return answer

    async def _open(self) -> redis.asyncio.Redis:
        if self._client is None:
            address = await self._names.address(self._endpoint.host, deadline=_SECONDS)
            self._client = redis.asyncio.Redis(
                host=address,
                port=self._endpoint.port,
                max_connections=4,
                socket_connect_timeout=_SECONDS,
                socket_timeout=_SECONDS,
                retry=Retry(NoBackoff(), 0),
                driver_info=None,
            )
        return self._client


def key_of(table: str, row_id: object) -> str:
    """Key of a cached row."""
    return f"hms:{table}:{row_id}"


def counter_of(service: str) -> str:
    """Key of a service's counter of writes."""
    return f"hms:writes:{service}"
