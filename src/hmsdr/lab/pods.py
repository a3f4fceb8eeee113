"""Which processes are the pods of a service: asked of the region's Kubernetes API, and of the kernel. Reads only."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from hmsdr.lab import probe
from hmsdr.lab.layout import NAMESPACE, Layout
from hmsdr.lab.ports import listeners
from hmsdr.lab.processes import lab_processes

_ASK_SECONDS = 2.0


async def service_processes(layout: Layout, region: str, service: str) -> set[int]:
    """Pids that listen on the address of a pod of `service` in `region`."""
    where = layout.regions[region].kubernetes
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    found = await probe.get_json(where, path, deadline=_ASK_SECONDS)
    addresses = {
        str(pod["status"]["podIP"])
        for pod in (found or {}).get("items", [])
        if pod["metadata"]["name"].startswith(f"{service}-service-") and pod.get("status", {}).get("podIP")
    }
    return await asyncio.to_thread(_listening, layout, region, addresses) if addresses else set()


def _listening(layout: Layout, region: str, addresses: set[str]) -> set[int]:
    sockets = {f"socket:[{each.inode}]" for each in listeners() if each.host in addresses}
    pids = set()
    for process in lab_processes(layout.lab_id, layout.directory):
        if process.region != region:
            continue
        with suppress(OSError):
            for handle in os.listdir(f"/proc/{process.pid}/fd"):  # noqa: PTH208
                with suppress(OSError):
                    if os.readlink(f"/proc/{process.pid}/fd/{handle}") in sockets:  # noqa: PTH115
                        pids.add(process.pid)
    return pids
