"""One region's Kubernetes as a process: the store, the API, the controllers and the kubelet, together.

It comes up from what is on disk, however it ended. An object that makes trouble is set aside or told of; if a whole part
fails, all of it ends, loudly.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

from aiohttp import web

from hmsdr.lab.kube import admission, manifests
from hmsdr.lab.kube.api import Api
from hmsdr.lab.kube.controllers import Controllers
from hmsdr.lab.kube.kubelet import Kubelet
from hmsdr.lab.kube.podexec import PodExec
from hmsdr.lab.kube.podlogs import PodLogs
from hmsdr.lab.kube.store import Store
from hmsdr.lab.layout import Layout, RegionLayout

_SHUTDOWN_SECONDS = 0.5


async def serve(layout: Layout, region: RegionLayout, *, empty: bool = False) -> None:
    """Serve the region's Kubernetes at its address until SIGTERM or SIGINT.

    Args:
        layout: the lab.
        region: which region of it.
        empty: a first start has only namespaces and a node, not the hospital.
    """
    store = Store()
    path = region.directory / "kube" / "objects.json"
    if not store.load(path, admission.check_stored):
        objects = manifests.cluster(region)
        for kind, item in objects if empty else objects + manifests.hospital(layout, region):
            store.create(kind, item)
    kubelet = Kubelet(store, layout, region)
    api = Api(store, {"log": PodLogs(kubelet).serve, "exec": PodExec(kubelet).serve})
    runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    await web.TCPSite(runner, region.kubernetes.host, region.kubernetes.port, reuse_address=True).start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    parts = (store.keep(path), Controllers(store, region).run(), kubelet.run(), stop.wait())
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await runner.cleanup()
