"""Which processes are the pods of a workload, and whether all of them serve.

Asked of the region's Kubernetes API, and of the kernel. Reads only.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

from hmsdr.lab import probe
from hmsdr.lab.layout import NAMESPACE, Layout
from hmsdr.lab.ports import listeners
from hmsdr.lab.processes import lab_processes

_ASK_SECONDS = 2.0


def deployment(service: str) -> str:
    """Name of the deployment of a service of the hospital."""
    return f"{service}-service"


def cache(layout: Layout, region: str) -> str:
    """Name of the region's Redis statefulset."""
    return f"redis-{layout.regions[region].ordinal_name}"


async def service_processes(layout: Layout, region: str, service: str) -> set[int]:
    """Pids that listen on the address of a pod of `service` in `region`."""
    pods = await _pods(layout, region, deployment(service)) or []
    addresses = {str(pod["status"]["podIP"]) for pod in pods if pod.get("status", {}).get("podIP")}
    return await asyncio.to_thread(_listening, layout, region, addresses) if addresses else set()


async def lacking(layout: Layout, region: str, workload: str) -> str | None:
    """None if every pod that `workload` should have is ready, and something listens on its address; else what is missing.

    Ready alone could be what was written before the processes died.
    """
    kind = "statefulsets" if workload == cache(layout, region) else "deployments"
    found = await _get(layout, region, f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}/{workload}")
    pods = await _pods(layout, region, workload)
    if found is None or pods is None:
        return f"the Kubernetes API does not say how {workload} is"
    wanted = int(found["spec"].get("replicas", 1))
    heard = {each.host for each in await asyncio.to_thread(listeners)}
    served = [pod for pod in pods if _ready(pod) and pod["status"].get("podIP") in heard]
    if len(served) >= wanted:
        return None
    words = ", ".join(sorted({_word(pod) for pod in pods if pod not in served}))
    return f"{workload} has {len(served)} of {wanted} pods ready{f' ({words})' if words else ''}"


async def _pods(layout: Layout, region: str, workload: str) -> list[dict[str, Any]] | None:
    found = await _get(layout, region, f"/api/v1/namespaces/{NAMESPACE}/pods")
    if found is None:
        return None
    return [pod for pod in found["items"] if pod["metadata"]["name"].startswith(f"{workload}-")]


async def _get(layout: Layout, region: str, path: str) -> Any:
    return await probe.get_json(layout.regions[region].kubernetes, path, deadline=_ASK_SECONDS)


def _ready(pod: dict[str, Any]) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _word(pod: dict[str, Any]) -> str:
    for container in pod.get("status", {}).get("containerStatuses", []):
        if reason := container["state"].get("waiting", {}).get("reason"):
            return str(reason)
    return "not ready"


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
