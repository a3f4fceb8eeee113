"""The controllers: deployments and statefulsets keep their pods, services their endpoints and address.

Each looks at all objects and takes the next step towards what their specs ask for (level, not edge), so that
a restart loses nothing. They start no process: that is the kubelet's part.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from hmsdr.lab.kube import kinds, namespaces, paused, slices
from hmsdr.lab.kube.events import record
from hmsdr.lab.kube.kinds import Kind
from hmsdr.lab.kube.podstatus import is_ending, is_ready
from hmsdr.lab.kube.scheduler import schedule
from hmsdr.lab.kube.store import Object, Store, key_of, now
from hmsdr.lab.kube.troubles import Troubles
from hmsdr.lab.layout import RegionLayout

_TEMPLATE = "pod-template-hash"
_REVISION = "controller-revision-hash"
_OWNERS = {kind.kind: kind for kind in (kinds.DEPLOYMENTS, kinds.STATEFULSETS)}


class Controllers:
    """All controllers of one region."""

    def __init__(self, store: Store, region: RegionLayout) -> None:
        self._store = store
        self._region = region
        self._troubles = Troubles(store, "controllers")

    async def run(self) -> None:
        """Reconcile after every change, till cancelled."""
        with self._store.watching() as queue:
            while True:
                self.reconcile()
                await queue.get()
                while not queue.empty():
                    queue.get_nowait()

    def reconcile(self) -> None:
        """One step of everything; an object that cannot be carried out is told of, and holds up no other."""
        steps: tuple[tuple[Kind, Callable[[Object], None]], ...] = (
            (kinds.NAMESPACES, partial(namespaces.empty, self._store)),
            (kinds.DEPLOYMENTS, self._deployment),
            (kinds.STATEFULSETS, self._statefulset),
            (kinds.PODS, self._orphan),
            (kinds.PODS, partial(schedule, self._store)),
            (kinds.ENDPOINTS, self._endpoints),
            (kinds.ENDPOINTSLICES, self._slice),
            (kinds.SERVICES, self._service),
            (kinds.INGRESSES, partial(self._balance, kinds.INGRESSES)),
        )
        for kind, step in steps:
            for item in self._store.all(kind):
                with self._troubles.of(item):
                    step(item)

    def _deployment(self, item: Object) -> None:
        wanted = int(item["spec"].get("replicas", 1))
        digest = _digest(item["spec"]["template"])
        pods = [pod for pod in self._owned(item) if not is_ending(pod)]
        (self._hold if paused.is_paused(item) else self._roll)(item, wanted, pods)
        new = [pod for pod in pods if pod["metadata"]["labels"].get(_TEMPLATE) == digest]
        old = [pod for pod in pods if pod not in new]
        status = _status(item, wanted, new, old)
        if status != item.get("status"):
            self._store.update(kinds.DEPLOYMENTS, *key_of(item), lambda now_: now_.update(status=status))

    def _roll(self, item: Object, wanted: int, pods: list[Object]) -> None:
        """A step towards the wanted number of pods of the newest template; `pods` follows."""
        template = item["spec"]["template"]
        digest = _digest(template)
        new = [pod for pod in pods if pod["metadata"]["labels"].get(_TEMPLATE) == digest]
        old = [pod for pod in pods if pod not in new]
        surge, unavailable = _rolling(item, wanted)

        def end(pod: Object) -> None:
            self._end(item, pod)
            pods.remove(pod)

        # Old pods that are not ready serve nobody; they make room at once.
        for pod in [pod for pod in old if not is_ready(pod)]:
            end(pod)
            old.remove(pod)
        spare = sum(is_ready(pod) for pod in new) + len(old) - (wanted - unavailable)
        for pod in old[: max(0, spare)]:
            end(pod)
        for pod in sorted(new, key=is_ready)[: max(0, len(new) - wanted)]:
            end(pod)
        left = [pod for pod in pods if pod in new]
        self._add(item, template, min(wanted - len(left), wanted + surge - len(pods)), pods)

    def _hold(self, item: Object, wanted: int, pods: list[Object]) -> None:
        """Paused: the number of pods is kept, and what they are made from stays what it was; `pods` follows."""
        template = paused.template(item)
        for pod in sorted(pods, key=is_ready)[: max(0, len(pods) - wanted)]:
            self._end(item, pod)
            pods.remove(pod)
        if template is not None:
            self._add(item, template, wanted - len(pods), pods)

    def _add(self, item: Object, template: Object, count: int, pods: list[Object]) -> None:
        digest = _digest(template)
        for _ in range(count):
            pod = self._pod(item, template, f"{digest}-{secrets.token_hex(3)[:5]}", {_TEMPLATE: digest})
            pods.append(pod)

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
            pod = pods.get(pod_name) or self._pod(
                item, item["spec"]["template"], pod_name.removeprefix(f"{name}-"), {_REVISION: digest}
            )
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

    def _pod(self, owner: Object, template: Object, suffix: str, labels: dict[str, str]) -> Object:
        name = f"{key_of(owner)[1]}-{suffix}"
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
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        record(self._store, owner, "SuccessfulCreate", f"Created pod: {name}")
        return self._store.create(kinds.PODS, pod)

    def _end(self, owner: Object, pod: Object) -> None:
        namespace, name = key_of(pod)
        record(self._store, owner, "SuccessfulDelete", f"Deleted pod: {name}")
        self._store.delete(kinds.PODS, namespace, name)

    def _orphan(self, pod: Object) -> None:
        references = pod["metadata"].get("ownerReferences")
        if not references or is_ending(pod):
            return
        kind = _OWNERS.get(references[0].get("kind", ""))
        namespace, name = key_of(pod)
        owner = self._store.find(kind, namespace, references[0].get("name", "")) if kind else None
        if owner is None or owner["metadata"]["uid"] != _owner(pod):
            self._store.delete(kinds.PODS, namespace, name)

    def _endpoints(self, item: Object) -> None:
        if self._store.find(kinds.SERVICES, *key_of(item)) is None:
            self._store.remove(kinds.ENDPOINTS, *key_of(item))

    def _slice(self, item: Object) -> None:
        namespace, name = key_of(item)
        service = item["metadata"].get("labels", {}).get(slices.SERVICE_LABEL)
        if service is not None and self._store.find(kinds.SERVICES, namespace, service) is None:
            self._store.remove(kinds.ENDPOINTSLICES, namespace, name)

    def _service(self, item: Object) -> None:
        if item["spec"].get("type") == "LoadBalancer":
            self._balance(kinds.SERVICES, item)
        selector = item["spec"].get("selector")
        if not selector:
            return
        namespace, name = key_of(item)
        pods = [
            pod
            for pod in self._store.all(kinds.PODS, namespace)
            if selector.items() <= (pod["metadata"].get("labels") or {}).items()
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
                on=not paused.is_paused(item),
                reason="DeploymentPaused"
                if paused.is_paused(item)
                else ("NewReplicaSetAvailable" if done else "ReplicaSetUpdated"),
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
