"""Bringing a lab up: every step, and which steps it needs first. Steps that do not need each other run at once.

It uses the production agents and drivers; only endpoints differ from production. It ends when both regions are
ready, replication streams and a first backup lies in both buckets. Cleaning up after a failure is the caller's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from hmsdr.errors import FailedError
from hmsdr.lab import foundation, probe
from hmsdr.lab.components import Component
from hmsdr.lab.layout import PUBLIC_NAME, SERVICES, Layout
from hmsdr.lab.regions import Agents

_T = TypeVar("_T")

Say = Callable[[str, str], None]
"""Told a step's name and its state: ``starting``, ``ready``."""

READY_SECONDS = 60.0
_PAUSE = 0.05
_ASK_SECONDS = 1.0
_PROMOTE_SECONDS = 20.0


class BringUp:
    """One bringing up.

    Args:
        layout: the lab, saved already.
        components: the servers by key.
        executor: for what blocks (PostgreSQL's initdb, boto3).
        say: told about progress.
    """

    def __init__(
        self, layout: Layout, components: dict[str, Component], executor: Executor, say: Say
    ) -> None:
        self._layout = layout
        self._components = components
        self._executor = executor
        self._say = say
        self._home, self._other = layout.regions
        self._began = time.monotonic()

    async def run(self) -> None:
        """All steps.

        Raises:
            FailedError: a part did not come up; the text has the end of its log.
        """
        await self._step("certificates, secrets, playbook", self._blocking(foundation.write_files))
        async with asyncio.TaskGroup() as group:
            etcd = group.create_task(self._etcd())
            databases = group.create_task(self._step("databases", self._databases(etcd)))
            aws = group.create_task(self._step("route 53 and s3", self._aws()))
            group.create_task(self._step("dns", self._dns(aws)))
            group.create_task(self._server("prometheus"))
            group.create_task(self._server("channels"))
            regions = [group.create_task(self._region(name, databases)) for name in self._layout.regions]
            writable = group.create_task(self._step("right to write", self._promoted(databases)))
            group.create_task(self._step("replication", self._streaming(writable)))
            group.create_task(self._step("first backup", self._backup(writable, aws)))
            group.create_task(self._services(writable, regions))
        await self._controllers()

    async def _etcd(self) -> None:
        members = [key for key in self._components if key.startswith("etcd ")]
        if members:
            await self._step("etcd", self._all_ready(members))

    async def _controllers(self) -> None:
        """Last: what is still coming up would be a lost region to them."""
        controllers = [key for key in self._components if key.startswith("controller ")]
        if controllers:
            await self._step("controllers", self._all_ready(controllers))

    async def _all_ready(self, keys: list[str]) -> None:
        for key in keys:
            self._components[key].start()
        for key in keys:
            await self._components[key].until_ready(READY_SECONDS)

    async def _databases(self, etcd: asyncio.Task[None]) -> None:
        await self._blocking(foundation.make_databases)
        await asyncio.wait({etcd})
        await foundation.make_store(self._layout)

    async def _aws(self) -> None:
        await self._ready("aws")
        await self._blocking(foundation.seed_aws)

    async def _dns(self, aws: asyncio.Task[None]) -> None:
        await self._ready("dns")
        await asyncio.wait({aws})
        await self._until(
            lambda: probe.resolves(self._layout.dns, PUBLIC_NAME, deadline=_ASK_SECONDS),
            f"DNS of {PUBLIC_NAME}",
        )

    async def _server(self, key: str) -> None:
        await self._step(key, self._ready(key))

    async def _region(self, name: str, databases: asyncio.Task[None]) -> None:
        self._components[f"ingress {name}"].start()
        await asyncio.wait({databases})
        await self._server(f"kubernetes {name}")
        await self._server(f"ingress {name}")

    async def _promoted(self, databases: asyncio.Task[None]) -> None:
        """The first promotion, under the epoch that was granted when the databases were made."""
        await asyncio.wait({databases})
        async with Agents(self._layout) as agents:
            await self._until(
                lambda: agents.first_promotion(self._home, deadline=_PROMOTE_SECONDS),
                f"the database of {self._home}",
                f"kubernetes {self._home}",
            )

    async def _streaming(self, writable: asyncio.Task[None]) -> None:
        await asyncio.wait({writable})
        async with Agents(self._layout) as agents:
            await self._until(
                lambda: agents.streams(self._other, deadline=_ASK_SECONDS),
                f"replication to {self._other}",
                f"kubernetes {self._other}",
            )

    async def _backup(self, writable: asyncio.Task[None], aws: asyncio.Task[None]) -> None:
        await asyncio.wait({writable, aws})
        await self._blocking(foundation.first_backup)

    async def _services(self, writable: asyncio.Task[None], regions: list[asyncio.Task[None]]) -> None:
        await asyncio.wait({writable, *regions})
        async with asyncio.TaskGroup() as group:
            for name in self._layout.regions:
                group.create_task(self._step(f"services {name}", self._region_services(name)))

    async def _region_services(self, name: str) -> None:
        where = self._layout.regions[name].ingress_http

        async def healthy(service: str) -> bool:
            return await probe.answers(where, f"/{service}-service/health", deadline=_ASK_SECONDS)

        async with asyncio.TaskGroup() as group:
            for service in SERVICES:
                what = f"the {service} service of {name}"
                group.create_task(self._until(partial(healthy, service), what, f"kubernetes {name}"))

    async def _ready(self, key: str) -> None:
        self._components[key].start()
        await self._components[key].until_ready(READY_SECONDS)

    async def _blocking(self, work: Callable[[Layout], _T]) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, work, self._layout)

    async def _step(self, name: str, work: Awaitable[None]) -> None:
        self._say(name, "starting")
        await work
        self._say(name, "ready")

    async def _until(self, holds: Callable[[], Awaitable[bool]], what: str, component: str = "") -> None:
        """Wait until `holds`; a dead `component` or `READY_SECONDS` since the beginning end the wait."""
        while not await holds():
            if time.monotonic() - self._began > READY_SECONDS:
                said = self._components[component].last_words() if component else ""
                raise FailedError(
                    f"bringing up {what}",
                    f"not ready after {READY_SECONDS:g} s{': ' + said if said else ''}",
                    "See the logs: `hmsdr lab up --keep` leaves them when it fails",
                )
            await asyncio.sleep(_PAUSE)
