"""Starting again what was broken in a lab, and saying honestly how each region came back.

A database that lost the right to write is not brought back here: it comes up fenced or as a standby, and making
the lost region whole is a recovery, which is a matter of its own.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from hmsdr.errors import FailedError
from hmsdr.lab import pods, probe
from hmsdr.lab.components import Component
from hmsdr.lab.layout import NAMESPACE, SERVICES, Layout
from hmsdr.lab.processes import kill, lab_processes
from hmsdr.lab.regions import Agents

HEAL_SECONDS = 60.0
_ASK_SECONDS = 1.0
_PAUSE = 0.1
_SETTLED = ("primary", "fenced", "absent")


class Healing:
    """One healing of one lab."""

    def __init__(self, layout: Layout, components: Mapping[str, Component]) -> None:
        self._layout = layout
        self._components = components

    async def run(self, broken: Collection[tuple[str, str, str | None]]) -> dict[str, Any]:
        """Start what is down and wait; gives each region's state in words.

        Args:
            broken: fault, region and service of each.

        Raises:
            FailedError: a server, an agent or a service did not come back.
        """
        for component in self._components.values():
            component.start()
        for component in self._components.values():
            await component.until_ready(HEAL_SECONDS, however_often=True)
        anew = await self._cloud()
        for fault, region, _ in broken:
            if fault == "database-killed":
                await asyncio.to_thread(self._restart_agent, region)
        async with Agents(self._layout) as agents, asyncio.timeout(2 * HEAL_SECONDS):
            regions = {region for _, region, _ in broken if region in self._layout.regions}
            await asyncio.gather(*(self._cache(region) for region in regions))
            await asyncio.gather(*(self._pods(region, name) for region, name in self._workloads(broken)))
            found = await asyncio.gather(
                *(self._region(agents, name, services=name in regions) for name in self._layout.regions)
            )
        return {"regions": dict(zip(self._layout.regions, found, strict=True)) | anew}

    async def _cloud(self) -> dict[str, str]:
        """What is told of the zone and the buckets: their server keeps nothing when it is killed."""
        from hmsdr.lab.aws.seed import seed  # noqa: PLC0415 - boto3, which nothing else here needs

        if not await seed(self._layout):
            return {}
        home = next(iter(self._layout.regions))
        return {
            "route53-and-s3": f"began anew: users are sent to {home}, and backups are gone until `hmsdr backup run`"
        }

    async def _region(self, agents: Agents, region: str, *, services: bool) -> str:
        ends = time.monotonic() + HEAL_SECONDS
        state, steady = "", 0
        while True:
            status = await agents.status(region, deadline=_ASK_SECONDS)
            if status is not None:
                state = status.database.state
                if state in _SETTLED or status.replication.streaming:
                    break
                # A standby that nobody feeds: it lost its primary, and waits for a recovery.
                steady = steady + 1 if state in ("standby", "stopped") else 0
                if steady * _PAUSE > 10:  # noqa: PLR2004 - seconds: longer than a lease and a reconnect
                    break
            if time.monotonic() > ends:
                raise FailedError(
                    f"healing {region}", f"its agent does not settle ({state or 'silent'})", "See its log"
                )
            await asyncio.sleep(_PAUSE)
        if state == "primary":
            if services:
                await self._services(region, ends)
            return "primary"
        if status is not None and status.replication.streaming:
            return "standby, streaming"
        return (
            f"{state}, neither writing nor streaming: `hmsdr authority show` says who may write; "
            f"`hmsdr recover {region}` makes a region that lost that right a standby again"
        )

    async def _cache(self, region: str) -> None:
        """Until Redis listens: Kubernetes is slow to start again what died many times."""
        where, ends = self._layout.regions[region].redis, time.monotonic() + HEAL_SECONDS
        while True:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_ASK_SECONDS):
                    _, writer = await asyncio.open_connection(where.host, where.port)
                writer.close()
                return
            if time.monotonic() > ends:
                raise FailedError(f"healing {region}", f"Redis does not listen on {where}", "See its log")
            await asyncio.sleep(_PAUSE)

    def _workloads(self, broken: Collection[tuple[str, str, str | None]]) -> set[tuple[str, str]]:
        """Region and name of what Kubernetes has to bring back."""
        found = set()
        for fault, region, service in broken:
            if fault in ("redis-killed", "region-down"):
                found.add((region, pods.cache(self._layout, region)))
            for each in SERVICES if fault == "region-down" else [service] if service else []:
                found.add((region, pods.deployment(each)))
        return found

    async def _pods(self, region: str, workload: str) -> None:
        ends = time.monotonic() + HEAL_SECONDS
        while (found := await pods.lacking(self._layout, region, workload)) is not None:
            if time.monotonic() > ends:
                remedy = f"`kubectl --context={region} -n {NAMESPACE} describe pods` says why"
                raise FailedError(f"healing {region}", found, remedy)
            await asyncio.sleep(_PAUSE)

    async def _services(self, region: str, ends: float) -> None:
        where = self._layout.regions[region].ingress_http
        for service in SERVICES:
            asks = partial(probe.answers, where, f"/{service}-service/health", deadline=_ASK_SECONDS)
            while not await asks():
                if time.monotonic() > ends:
                    raise FailedError(
                        f"healing {region}", f"the {service} service does not answer", "See its log"
                    )
                await asyncio.sleep(_PAUSE)

    def _restart_agent(self, region: str) -> None:
        """An agent that holds its database stopped after crashes starts it again in its next life."""
        for process in lab_processes(self._layout.lab_id, self._layout.directory):
            if process.region == region and " agent " in process.command and "hmsdr" in process.command:
                kill(process, signal.SIGTERM)
