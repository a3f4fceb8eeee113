"""Two regions' addresses with whatever a test puts there: real ports, no servers of the hospital."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml
from aiohttp import web
from hospital import EAST, WEST, free_network

from hmsdr.control.watch import RegionWatch, Trigger
from hmsdr.decide.outage import Watch
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.runbook.systems import Systems

PORT, AGENT, PUBLIC = 18080, 18300, 18081


class World:
    """Two regions' addresses; on each of them whatever the test puts there."""

    def __init__(self, directory: Path, systems: Systems, store: SqliteStore, hosts: dict[str, str]) -> None:
        self.store = store
        self.directory = directory
        self.systems = systems
        self.hosts = hosts
        self.changes: list[Watch] = []
        self.answers: dict[tuple[str, str], int] = {}
        """Status by region and path."""
        self._runners: dict[tuple[str, int], web.AppRunner] = {}
        self._tasks: list[asyncio.Task[Trigger]] = []

    async def serve(self, region: str, port: int = PORT, status: int = 200) -> None:
        """Answer everything there with `status`, but what stands in `answers`."""

        async def answer(request: web.Request) -> web.Response:
            told = self.answers.get((region, request.path), status)
            return web.json_response({"error": {"found": "as told"}}, status=told)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, self.hosts[region], port, reuse_address=True).start()
        self._runners[region, port] = runner

    async def stop(self, region: str, port: int = PORT) -> None:
        await self._runners.pop((region, port)).cleanup()

    def watch(self) -> RegionWatch:
        return RegionWatch(self.systems, EAST, on_change=self.changes.append)

    def until_lost(self, watch: RegionWatch) -> asyncio.Task[Trigger]:
        self._tasks.append(asyncio.create_task(watch.until_lost()))
        return self._tasks[-1]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for runner in self._runners.values():
            await runner.cleanup()
        await self.systems.close()
        await self.store.close()


async def open_world(directory: Path) -> World:
    """Nothing answers yet."""
    net = free_network()
    hosts = {EAST: f"{net}.1", WEST: f"{net}.2"}
    overlay = {
        "extends": "hms",
        "thresholds": {
            "probing": {"interval": "100ms", "timeout": "400ms"},
            "triggers": {
                "region_unreachable": "1s",
                "critical_services_unavailable": "2s",
                "critical_services_recovery": "600ms",
            },
        },
        # Users are sent to the first region.
        "traffic": {"public_url": f"http://{hosts[EAST]}:{PUBLIC}"},
        "regions": {
            name: {
                "postgres": {"host": host, "service_host": host, "password": None},
                "agent": {"url": f"http://{host}:{AGENT}", "key": "${file:agent.key}"},
                "ingress": {"url": f"http://{host}:{PORT}", "address": host},
            }
            for name, host in hosts.items()
        },
    }
    (directory / "agent.key").write_text("key")
    (directory / "playbook.yaml").write_text(yaml.safe_dump(overlay))
    store = await SqliteStore.open(directory / "store.db", create=True, lease_seconds=4)
    return World(directory, Systems(load(directory / "playbook.yaml"), store), store, hosts)
