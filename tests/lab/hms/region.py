"""A region's front: a layout, an Endpoints API that can be changed and cut, and the real processes before it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from aiohttp import web
from servers import Hospital, Pod, until

from hmsdr.lab.layout import PUBLIC_NAME, SERVICES, Endpoint, Layout, RegionLayout
from hmsdr.lab.tls import write_certificates

EAST, WEST = "us-east-1", "us-west-2"


def ingress(paths: dict[str, str]) -> dict[str, Any]:
    """An Ingress object: service by path."""
    rules = [
        {"path": path, "pathType": "Prefix", "backend": {"service": {"name": name, "port": {"number": 80}}}}
        for path, name in paths.items()
    ]
    return {
        "metadata": {"name": "hms"},
        "spec": {"ingressClassName": "lab", "rules": [{"http": {"paths": rules}}]},
    }


class EndpointsApi:
    """List and watch of Endpoints and of one Ingress, as the Kubernetes API speaks them."""

    def __init__(self, at: Endpoint) -> None:
        self._at = at
        self._items: dict[str, dict[str, Any]] = {}
        self._version = 1
        self._watchers: list[asyncio.Queue[dict[str, Any] | None]] = []
        self._routed: list[asyncio.Queue[dict[str, Any] | None]] = []
        self._ingress: dict[str, Any] | None = ingress(
            {f"/{each}-service": f"{each}-service" for each in SERVICES}
        )
        self._runner: web.AppRunner | None = None
        self.lists = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/hms-system/endpoints", self._answer)
        app.router.add_get("/apis/networking.k8s.io/v1/namespaces/hms-system/ingresses", self._routes)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._at.host, self._at.port, reuse_address=True).start()

    async def stop(self) -> None:
        self.end_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def end_watches(self) -> None:
        for watcher in (*self._watchers, *self._routed):
            watcher.put_nowait(None)

    def set(self, service: str, ready: list[str], waiting: list[str] | None = None) -> None:
        """Pods of a service by their addresses."""
        name = f"{service}-service"
        self._version += 1
        kind = "MODIFIED" if name in self._items else "ADDED"
        subset: dict[str, Any] = {"ports": [{"port": 8080}]}
        for field, hosts in (("addresses", ready), ("notReadyAddresses", waiting or [])):
            if hosts:
                subset[field] = [{"ip": host, "targetRef": {"name": f"{name}-{host}"}} for host in hosts]
        subsets = [subset] if len(subset) > 1 else None
        self._items[name] = {"metadata": {"name": name}, "subsets": subsets}
        for watcher in self._watchers:
            watcher.put_nowait({"type": kind, "object": self._items[name]})

    def route(self, paths: dict[str, str], kind: str = "MODIFIED") -> None:
        """The one ingress: service by path; with the kind ``DELETED`` it is gone."""
        self._version += 1
        self._ingress = ingress(paths) if kind != "DELETED" else None
        for watcher in self._routed:
            watcher.put_nowait({"type": kind, "object": ingress(paths)})

    async def _routes(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            items = [self._ingress] if self._ingress else []
            return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": items})
        return await self._stream(request, self._routed)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            body = {"metadata": {"resourceVersion": str(self._version)}, "items": list(self._items.values())}
            return web.json_response(body)
        return await self._stream(request, self._watchers)

    async def _stream(
        self, request: web.Request, watchers: list[asyncio.Queue[dict[str, Any] | None]]
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        watcher: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        watchers.append(watcher)
        try:
            while (event := await watcher.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        finally:
            watchers.remove(watcher)
        return response


def layout_of(hospital: Hospital) -> Layout:
    """Both regions on the hospital's network; certificates and lab.json are written."""
    net = hospital.net
    directory = hospital.directory
    regions = {}
    for number, (name, ordinal) in enumerate(((EAST, "primary"), (WEST, "secondary"))):
        here = f"{net}.{10 + number}"
        regions[name] = RegionLayout(
            name=name, ordinal_name=ordinal, directory=directory / name, pod_network=net,
            ingress_http=Endpoint(here, 8080), ingress_https=Endpoint(here, 8443),
            kubernetes=Endpoint(f"{net}.{2 + number}", 6443), postgres=Endpoint(f"{net}.{20 + number}", 5432),
            redis=Endpoint(f"{net}.{30 + number}", 6379), agent=Endpoint(here, 8300),
        )  # fmt: skip
    host, port = hospital.names.address.split(":")
    layout = Layout(
        lab_id="test", directory=directory, user=None, regions=regions, aws=Endpoint(net + ".4", 4566),
        moto=Endpoint(net + ".5", 4567), dns=Endpoint(host, int(port)), prometheus=Endpoint(f"{net}.90", 9090),
        channels=Endpoint(f"{net}.86", 8600), mail=Endpoint(f"{net}.86", 10025), sites={},
    )  # fmt: skip
    (directory / "tls").mkdir(parents=True)
    write_certificates(
        directory / "tls",
        [PUBLIC_NAME],
        [*(each.ingress_https.host for each in regions.values()), layout.prometheus.host],
    )
    layout.save()
    return layout


def run(module: str, layout: Layout, *more: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    """A process of the lab, in its own output file."""
    with (log or layout.directory / f"{module}.log").open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module, "--lab", str(layout.directory), *more],
            stdout=file, stderr=file, env=os.environ,
        )  # fmt: skip


def spawn(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
    """A program that is none of ours, working in `directory`."""
    return subprocess.Popen(command, cwd=directory)


class Front:
    """Ingress processes of a hospital, with the APIs that they watch."""

    def __init__(self, hospital: Hospital) -> None:
        self.hospital = hospital
        self.layout = layout_of(hospital)
        self.apis = {name: EndpointsApi(region.kubernetes) for name, region in self.layout.regions.items()}
        self.processes: list[subprocess.Popen[bytes]] = []

    def url(self, region: str) -> str:
        return f"http://{self.layout.regions[region].ingress_http}"

    async def ingress(self, region: str = EAST) -> subprocess.Popen[bytes]:
        """Start it, and wait until it listens."""
        process = run("hmsdr.lab.hms.ingress", self.layout, "--region", region)
        self.processes.append(process)

        async def alive() -> bool:
            return (await self.hospital.get(f"{self.url(region)}/__ingress/healthz"))[0] == 200

        await until(f"the ingress of {region} listens", alive)
        return process

    async def staff(self, region: str, first: int = 0, **more: str) -> dict[str, Pod]:
        """One pod of each service, known to the region's API."""
        pods = {
            service: self.hospital.pod(service, first + number, HMS_REGION=region, **more)
            for number, service in enumerate(SERVICES)
        }
        for pod in pods.values():
            await self.hospital.ready(pod)
            self.apis[region].set(pod.service, [pod.host])
        return pods

    async def healthy(self, region: str = EAST) -> dict[str, Any]:
        """Wait until all five services are well there; gives the health answer."""

        async def ask() -> dict[str, Any] | None:
            status, answer = await self.hospital.get(f"{self.url(region)}/health")
            return answer if status == 200 else None

        return await until(f"{region} is healthy", ask)

    async def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(10)
        for api in self.apis.values():
            await api.stop()
