"""The controllers: deployments and statefulsets keep their pods, services their endpoints and address.

Each looks at all objects and takes the next step towards what their specs ask for (level, not edge), so that
a restart loses nothing. They start no process: that is the kubelet's part.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from typing import Any

from hmsdr.lab.kube import kinds, slices
from hmsdr.lab.kube.events import record
from hmsdr.lab.kube.kinds import Kind
from hmsdr.lab.kube.podstatus import is_ending, is_ready
from hmsdr.lab.kube.selectors import labels_match
from hmsdr.lab.kube.store import Object, Store, key_of, now
from hmsdr.lab.layout import RegionLayout

_TEMPLATE = "pod-template-hash"
_REVISION = "controller-revision-hash"


class Controllers:
    """All controllers of one region."""

    def __init__(self, store: Store, region: RegionLayout) -> None:
        self._store = store
        self._region = region
        self.node = f"node-{region.name}"

    async def run(self) -> None:
        """Reconcile after every change, till cancelled."""
        with self._store.watching() as queue:
            while True:
                self.reconcile()
                await queue.get()
                while not queue.empty():
                    queue.get_nowait()

    def reconcile(self) -> None:
        """One step of everything."""
        for item in self._store.all(kinds.DEPLOYMENTS):
            self._deployment(item)
        for item in self._store.all(kinds.STATEFULSETS):
            self._statefulset(item)
        self._orphans()
        for item in self._store.all(kinds.SERVICES):
            self._service(item)
        for item in self._store.all(kinds.INGRESSES):
            self._balance(kinds.INGRESSES, item)

    def _deployment(self, item: Object) -> None:
        wanted = int(item["spec"].get("replicas", 1))
        digest = _digest(item["spec"]["template"])
        pods = [pod for pod in self._owned(item) if not is_ending(pod)]
        new = [pod for pod in pods if pod["metadata"]["labels"].get(_TEMPLATE) == digest]
        old = [pod for pod in pods if pod not in new]
        surge, unavailable = _rolling(item, wanted)
        # Old pods that are not ready serve nobody; they make room at once.
        for pod in [pod for pod in old if not is_ready(pod)]:
            self._end(item, pod)
            old.remove(pod)
        spare = sum(is_ready(pod) for pod in new) + len(old) - (wanted - unavailable)
        for pod in old[: max(0, spare)]:
            self._end(item, pod)
            old.remove(pod)
        for pod in sorted(new, key=is_ready)[: max(0, len(new) - wanted)]:
            self._end(item, pod)
            new.remove(pod)
        for _ in range(min(wanted - len(new), wanted + surge - len(new) - len(old))):
            name = f"{key_of(item)[1]}-{digest}-{secrets.token_hex(3)[:5]}"
            new.append(self._pod(item, name, {_TEMPLATE: digest}))
        status = _status(item, wanted, new, old)
        if status != item.get("status"):
            self._store.update(kinds.DEPLOYMENTS, *key_of(item), lambda now_: now_.update(status=status))

    def _statefulset(self, item: Object) -> None:
        namespace, name = key_of(item)
        wanted = int(item["spec"].get("replicas", 1))
        digest = _digest(item["spec"]["template"])
        pods = {key_of(pod)[1]: pod for pod in self._owned(item)}
        names = [f"{name}-{index}" for index in range(wanted)]
        for pod_name, pod in pods.items():
            if pod_name not in names and not is_ending(pod):
                self._end(item, pod)
        for pod_name in names:
            pod = pods.get(pod_name) or self._pod(item, pod_name, {_REVISION: digest})
            pods[pod_name] = pod
            if pod["metadata"]["labels"].get(_REVISION) != digest and not is_ending(pod):
                self._end(item, pod)
            if is_ending(pod) or not is_ready(pod):
                break
        alive = [pod for pod in pods.values() if not is_ending(pod)]
        current = [pod for pod in alive if pod["metadata"]["labels"].get(_REVISION) == digest]
        ready = sum(is_ready(pod) for pod in alive)
        status = {
            "observedGeneration": item["metadata"].get("generation", 1),
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "currentReplicas": len(current),
            "updatedReplicas": len(current),
            "currentRevision": f"{name}-{digest}",
            "updateRevision": f"{name}-{digest}",
        }
        if status != item.get("status"):
            self._store.update(kinds.STATEFULSETS, namespace, name, lambda now_: now_.update(status=status))

    def _owned(self, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        return [pod for pod in self._store.all(kinds.PODS, key_of(owner)[0]) if _owner(pod) == uid]

    def _pod(self, owner: Object, name: str, labels: dict[str, str]) -> Object:
        template = owner["spec"]["template"]
        metadata = template.get("metadata") or {}
        reference = {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        pod = {
            "metadata": {
                "name": name,
                "namespace": key_of(owner)[0],
                "labels": (metadata.get("labels") or {}) | labels,
                "annotations": metadata.get("annotations") or {},
                "ownerReferences": [reference],
            },
            "spec": template["spec"] | {"nodeName": self.node},
            "status": {"phase": "Pending"},
        }
        record(self._store, owner, "SuccessfulCreate", f"Created pod: {name}")
        return self._store.create(kinds.PODS, pod)

    def _end(self, owner: Object, pod: Object) -> None:
        namespace, name = key_of(pod)
        record(self._store, owner, "SuccessfulDelete", f"Deleted pod: {name}")
        self._store.delete(kinds.PODS, namespace, name)

    def _orphans(self) -> None:
        owners = {
            item["metadata"]["uid"]
            for kind in (kinds.DEPLOYMENTS, kinds.STATEFULSETS)
            for item in self._store.all(kind)
        }
        for pod in self._store.all(kinds.PODS):
            if _owner(pod) not in owners | {None} and not is_ending(pod):
                self._store.delete(kinds.PODS, *key_of(pod))
        services = {key_of(item) for item in self._store.all(kinds.SERVICES)}
        for item in self._store.all(kinds.ENDPOINTS):
            if key_of(item) not in services:
                self._store.remove(kinds.ENDPOINTS, *key_of(item))
        for item in self._store.all(kinds.ENDPOINTSLICES):
            namespace, name = (
                item["metadata"]["namespace"],
                item["metadata"].get("labels", {}).get(slices.SERVICE_LABEL),
            )
            if name is not None and (namespace, name) not in services:
                self._store.remove(kinds.ENDPOINTSLICES, *key_of(item))

    def _service(self, item: Object) -> None:
        if item["spec"].get("type") == "LoadBalancer":
            self._balance(kinds.SERVICES, item)
        selector = item["spec"].get("selector")
        if not selector:
            return
        text = ",".join(f"{key}={value}" for key, value in selector.items())
        namespace, name = key_of(item)
        pods = [
            pod
            for pod in self._store.all(kinds.PODS, namespace)
            if labels_match(text, pod["metadata"].get("labels") or {})
            and pod.get("status", {}).get("podIP")
            and not is_ending(pod)
        ]
        subsets = _subsets(item, pods)
        endpoints = {"metadata": {"name": name, "namespace": namespace}, "subsets": subsets}
        found = self._store.find(kinds.ENDPOINTS, namespace, name)
        if found is None:
            self._store.create(kinds.ENDPOINTS, endpoints)
        elif found.get("subsets") != subsets:
            self._store.replace(kinds.ENDPOINTS, found | {"subsets": subsets})
        wanted = slices.of(endpoints)
        there = self._store.find(kinds.ENDPOINTSLICES, *key_of(wanted))
        if there is None:
            self._store.create(kinds.ENDPOINTSLICES, wanted)
        elif (there["endpoints"], there["ports"]) != (wanted["endpoints"], wanted["ports"]):
            told = {key: wanted[key] for key in ("endpoints", "ports")}
            self._store.replace(kinds.ENDPOINTSLICES, there | told)

    def _balance(self, kind: Kind, item: Object) -> None:
        status = {"loadBalancer": {"ingress": [{"ip": self._region.ingress_http.host}]}}
        if item.get("status") != status:
            self._store.update(kind, *key_of(item), lambda now_: now_.update(status=status))


def _owner(pod: Object) -> str | None:
    references = pod["metadata"].get("ownerReferences") or [{}]
    found = references[0].get("uid")
    return None if found is None else str(found)


def _digest(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def _rolling(item: Object, wanted: int) -> tuple[int, int]:
    """How many pods there may be above, and be missing below, what is wanted."""
    strategy = item["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, wanted
    rolling = strategy.get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", "25%"), wanted, math.ceil)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), wanted, math.floor)
    return (surge, unavailable) if surge or unavailable else (1, 0)


def _share(value: int | str, of: int, rounded: Any) -> int:
    if isinstance(value, str) and value.endswith("%"):
        return int(rounded(of * float(value[:-1]) / 100))
    return int(value)


def _status(item: Object, wanted: int, new: list[Object], old: list[Object]) -> Object:
    before = item.get("status", {})
    ready = sum(is_ready(pod) for pod in new + old)
    ready_new = sum(is_ready(pod) for pod in new)
    available = ready >= wanted - _rolling(item, wanted)[1]
    done = ready_new == len(new) == wanted and not old
    return {
        "observedGeneration": item["metadata"].get("generation", 1),
        "replicas": len(new) + len(old),
        "updatedReplicas": len(new),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, wanted - ready),
        "conditions": [
            _condition(
                before,
                "Available",
                on=available,
                reason="MinimumReplicasAvailable" if available else "MinimumReplicasUnavailable",
            ),
            _condition(
                before,
                "Progressing",
                on=True,
                reason="NewReplicaSetAvailable" if done else "ReplicaSetUpdated",
            ),
        ],
    }


def _condition(before: Object, kind: str, *, on: bool, reason: str) -> dict[str, Any]:
    word = "True" if on else "False"
    for condition in before.get("conditions", []):
        if (condition["type"], condition["status"], condition["reason"]) == (kind, word, reason):
            return dict(condition)
    return {
        "type": kind,
        "status": word,
        "reason": reason,
        "message": reason,
        "lastUpdateTime": now(),
        "lastTransitionTime": now(),
    }


def _subsets(service: Object, pods: list[Object]) -> list[Any]:
    ports = [
        {
            "name": port.get("name", ""),
            "port": _target(port, pods),
            "protocol": port.get("protocol", "TCP"),
        }
        for port in service["spec"].get("ports", [])
    ]
    ready = [_address(pod) for pod in pods if is_ready(pod)]
    waiting = [_address(pod) for pod in pods if not is_ready(pod)]
    subset = {"addresses": ready, "notReadyAddresses": waiting}
    found: dict[str, Any] = {key: value for key, value in subset.items() if value}
    return [found | {"ports": ports}] if found else []


def _target(port: Object, pods: list[Object]) -> int:
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for pod in pods:
        for entry in pod["spec"]["containers"][0].get("ports") or []:
            if entry.get("name") == target:
                return int(entry["containerPort"])
    return int(port["port"])


def _address(pod: Object) -> dict[str, Any]:
    namespace, name = key_of(pod)
    reference = {"kind": "Pod", "namespace": namespace, "name": name, "uid": pod["metadata"]["uid"]}
    return {"ip": pod["status"]["podIP"], "nodeName": pod["spec"].get("nodeName"), "targetRef": reference}
