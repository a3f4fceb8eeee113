"""A real server of the lab's Kubernetes on loopback, and real kubectl against it, for the tests beside this."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from hmsdr.lab.kube import kubeconfig
from hmsdr.lab.layout import NAMESPACE, REGIONS, Endpoint, Layout, RegionLayout

KUBECTL = shutil.which("kubectl")
APP = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/exit":
            os._exit(3)
        self.send_response(200 if os.environ.get("HEALTHY", "yes") == "yes" else 503)
        self.end_headers()
        self.wfile.write((os.environ.get("DATABASE_HOST", "") + " " + str(os.getpid())).encode())
    def log_message(self, *args):
        pass
print("serving as", os.environ["POD_NAME"], flush=True)
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Handler).serve_forever()
"""


def layout_in(directory: Path) -> Layout:
    base = f"127.{random.randint(130, 139)}"  # labs have 127.64 to 127.127
    net = random.randint(1, 80) * 3
    regions = {}
    for index, name in enumerate(REGIONS):
        network = f"{base}.{net + index}"
        place = directory / name
        place.mkdir()
        regions[name] = RegionLayout(
            name=name,
            ordinal_name=("primary", "secondary")[index],
            directory=place,
            pod_network=network,
            ingress_http=Endpoint(f"{network}.10", 80),
            ingress_https=Endpoint(f"{network}.10", 443),
            kubernetes=Endpoint(f"{network}.11", 6443),
            postgres=Endpoint(f"{network}.20", 5432),
            redis=Endpoint(f"{network}.21", 6379),
            agent=Endpoint(f"{network}.22", 7443),
        )
    shared = f"{base}.{net + 2}"
    layout = Layout(
        lab_id="test",
        directory=directory,
        user=None,
        regions=regions,
        aws=Endpoint(f"{shared}.10", 80),
        moto=Endpoint(f"{shared}.11", 80),
        dns=Endpoint(f"{shared}.12", 53),
        prometheus=Endpoint(f"{shared}.13", 9090),
        channels=Endpoint(f"{shared}.14", 8600),
        mail=Endpoint(f"{shared}.14", 10025),
        sites={},
    )
    layout.save()
    kubeconfig.write(layout)
    return layout


def deployment(
    directory: Path, name: str = "patient-service", replicas: int = 2, **env: str
) -> dict[str, Any]:
    script = directory / "app.py"
    script.write_text(APP)
    container = {
        "name": "patient",
        "image": "test/app:1.0",
        "command": [sys.executable, str(script)],
        "ports": [{"containerPort": 8080}],
        "env": [{"name": key, "value": value} for key, value in env.items()],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 2}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    }


class Cluster:
    """One region's server process."""

    def __init__(self, layout: Layout, region: str = REGIONS[0]) -> None:
        self.layout = layout
        self.region = layout.regions[region]
        self.url = f"http://{self.region.kubernetes}"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *options: str) -> None:
        with (self.layout.directory / "server.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hmsdr.lab.kube", "--lab", str(self.layout.directory)),
                *("--region", self.region.name, *options),
                stdout=log,
                stderr=log,
            )
        await wait_for(self._up, "the server to be ready")

    async def _up(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, (self.layout.directory / "server.log").read_text()
        return await fetch(f"{self.url}/readyz") == "ok"

    async def stop(self, *, kill: bool = False) -> None:
        if self.process is not None and self.process.returncode is None:
            (self.process.kill if kill else self.process.terminate)()
            await asyncio.wait_for(self.process.wait(), 15)

    async def kubectl(
        self, *words: str, given: str = "", fails: bool = False, errors: bool = False, outputs: bool = False
    ) -> str:
        """What it prints, or says to stderr if it fails; with `errors` and `outputs`, whichever comes unexpectedly."""
        assert KUBECTL is not None
        env = {**os.environ, "KUBECONFIG": str(self.layout.kubeconfig), "HOME": str(self.layout.directory)}
        process = await asyncio.create_subprocess_exec(
            *(KUBECTL, f"--context={self.region.name}", *words),
            env=env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(given.encode()), 60)
        assert (process.returncode != 0) is fails, f"kubectl {' '.join(words)}: {err.decode()}{out.decode()}"
        return err.decode() if (fails or errors) and not outputs else out.decode()


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(layout_in(directory))
    try:
        await cluster.start("--empty")
        yield cluster
    finally:
        await cluster.stop()


async def fetch(url: str) -> str | None:
    """The body, or None if nobody answers with success."""

    def get() -> str | None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            return None

    return await asyncio.to_thread(get)


async def wait_for(condition: Any, what: str, seconds: float = 30) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited {seconds}s for {what}") from None
