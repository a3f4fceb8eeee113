"""The status of a pod, as its kubelet writes it. It changes the object it is given and nothing else."""

from __future__ import annotations

from typing import Any

from hmsdr.lab.kube.status import bad_request
from hmsdr.lab.kube.store import Object, key_of, now


def is_ready(pod: Object) -> bool:
    """Is its condition Ready true?"""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_ending(pod: Object) -> bool:
    """Has its deletion been asked for?"""
    return bool(pod["metadata"].get("deletionTimestamp"))


def restarts(pod: Object) -> int:
    """How often its container was started again."""
    return sum(entry.get("restartCount", 0) for entry in pod.get("status", {}).get("containerStatuses", []))


def check_container(pod: Object, name: str | None) -> None:
    """Refuse a container that the pod does not have; None and the empty name mean its first.

    Raises:
        ApiError: there is none of that name.
    """
    if name and name not in {container["name"] for container in pod["spec"]["containers"]}:
        raise bad_request(f"container {name} is not valid for pod {key_of(pod)[1]}")


def write(
    pod: Object, *, address: str, state: dict[str, Any], ready: bool, restart_count: int, last: dict[str, Any]
) -> None:
    """Write the whole status.

    Args:
        pod: changed in place.
        address: the pod's address.
        state: of the container: ``{"running": …}``, ``{"waiting": …}`` or ``{"terminated": …}``.
        ready: whether it may get requests.
        restart_count: starts after the first.
        last: state of the container's previous run, or empty.
    """
    container = pod["spec"]["containers"][0]
    old = pod.get("status", {})
    started = "running" in state
    pod["status"] = {
        "phase": "Running" if started or restart_count else "Pending",
        "hostIP": address,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": old.get("startTime", now()),
        "qosClass": "BestEffort",
        "conditions": [
            _condition(old, kind, on=on)
            for kind, on in (
                ("Initialized", True),
                ("Ready", ready),
                ("ContainersReady", ready),
                ("PodScheduled", True),
            )
        ],
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container.get("image", ""),
                "imageID": container.get("image", ""),
                "containerID": f"process://{pod['metadata']['uid']}/{restart_count}",
                "ready": ready,
                "started": started,
                "restartCount": restart_count,
                "state": state,
                "lastState": last,
            }
        ],
    }


def _condition(old: Object, kind: str, *, on: bool) -> dict[str, Any]:
    word = "True" if on else "False"
    for condition in old.get("conditions", []):
        if (condition["type"], condition["status"]) == (kind, word):
            return dict(condition)
    return {"type": kind, "status": word, "lastProbeTime": None, "lastTransitionTime": now()}
