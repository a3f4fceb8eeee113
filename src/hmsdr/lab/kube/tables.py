"""Server-side tables: what kubectl prints, with its own columns. Read only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hmsdr.lab.kube.kinds import Kind
from hmsdr.lab.kube.store import Object

_Row = Callable[[Object], list[Any]]
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def age(timestamp: str | None) -> str:
    """Time since `timestamp`, short: 5s, 12m, 3h, 2d."""
    if not timestamp:
        return "<unknown>"
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds())
    for limit, unit, letter in ((2 * _MINUTE, 1, "s"), (3 * _HOUR, _MINUTE, "m"), (2 * _DAY, _HOUR, "h")):
        if seconds < limit:
            return f"{seconds // unit}{letter}"
    return f"{seconds // _DAY}d"


def _age(item: Object) -> str:
    return age(item["metadata"].get("creationTimestamp"))


def _pod(item: Object) -> list[Any]:
    status = item.get("status", {})
    containers = status.get("containerStatuses", [])
    word = status.get("phase", "Pending")
    for container in containers:
        state = container.get("state", {})
        for kind in ("waiting", "terminated"):
            word = state.get(kind, {}).get("reason", word)
    if item["metadata"].get("deletionTimestamp"):
        word = "Terminating"
    ready = sum(bool(container.get("ready")) for container in containers)
    restarts = sum(container.get("restartCount", 0) for container in containers)
    total = len(item["spec"].get("containers", []))
    return [
        f"{ready}/{total}",
        word,
        restarts,
        _age(item),
        status.get("podIP") or "<none>",
        item["spec"].get("nodeName", "<none>"),
        "<none>",
        "<none>",
    ]


def _containers(item: Object) -> list[str]:
    containers = item["spec"]["template"]["spec"].get("containers", [])
    return [",".join(c["name"] for c in containers), ",".join(c.get("image", "") for c in containers)]


def _selector(item: Object) -> str:
    selector = item["spec"].get("selector") or {}
    labels = selector.get("matchLabels", {}) if "template" in item["spec"] else selector
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>"


def _deployment(item: Object) -> list[Any]:
    status = item.get("status", {})
    return [
        f"{status.get('readyReplicas', 0)}/{item['spec'].get('replicas', 1)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _age(item),
        *_containers(item),
        _selector(item),
    ]


def _statefulset(item: Object) -> list[Any]:
    ready = item.get("status", {}).get("readyReplicas", 0)
    return [f"{ready}/{item['spec'].get('replicas', 1)}", _age(item), *_containers(item)]


def _addresses(item: Object) -> str:
    found = item.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    return ",".join(entry.get("ip") or entry.get("hostname", "") for entry in found)


def _service(item: Object) -> list[Any]:
    spec = item["spec"]
    balanced = spec.get("type") == "LoadBalancer"
    ports = [f"{port['port']}/{port.get('protocol', 'TCP')}" for port in spec.get("ports", [])]
    return [
        spec.get("type", "ClusterIP"),
        spec.get("clusterIP") or "<none>",
        _addresses(item) or ("<pending>" if balanced else "<none>"),
        ",".join(ports) or "<none>",
        _age(item),
        _selector(item),
    ]


def _ingress(item: Object) -> list[Any]:
    spec = item["spec"]
    hosts = ",".join(rule.get("host", "*") for rule in spec.get("rules", [])) or "*"
    ports = "80, 443" if spec.get("tls") else "80"
    return [spec.get("ingressClassName", "<none>"), hosts, _addresses(item), ports, _age(item)]


def _node(item: Object) -> list[Any]:
    status = item.get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
    addresses = {entry["type"]: entry["address"] for entry in status.get("addresses", [])}
    version = status.get("nodeInfo", {}).get("kubeletVersion", "")
    words = ["Ready" if ready else "NotReady"]
    if item.get("spec", {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return [
        ",".join(words),
        "<none>",
        _age(item),
        version,
        addresses.get("InternalIP", "<none>"),
    ]


def _event(item: Object) -> list[Any]:
    about = item.get("involvedObject", {})
    return [
        age(item.get("lastTimestamp")),
        item.get("type", ""),
        item.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        item.get("message", ""),
    ]


def _endpoints(item: Object) -> list[Any]:
    found = [
        f"{address['ip']}:{port['port']}"
        for subset in item.get("subsets", [])
        for address in subset.get("addresses", [])
        for port in subset.get("ports", [])
    ]
    return [",".join(found) or "<none>", _age(item)]


def _slice(item: Object) -> list[Any]:
    ports = ",".join(str(port["port"]) for port in item.get("ports", [])) or "<unset>"
    addresses = [address for found in item.get("endpoints", []) for address in found["addresses"]]
    return [item.get("addressType", ""), ports, ",".join(addresses) or "<unset>", _age(item)]


_COLUMNS: dict[str, tuple[str, _Row]] = {
    "pods": ("Ready Status Restarts Age +IP +Node +Nominated_Node +Readiness_Gates", _pod),
    "deployments": ("Ready Up-to-date Available Age +Containers +Images +Selector", _deployment),
    "statefulsets": ("Ready Age +Containers +Images", _statefulset),
    "services": ("Type Cluster-IP External-IP Port(s) Age +Selector", _service),
    "ingresses": ("Class Hosts Address Ports Age", _ingress),
    "nodes": ("Status Roles Age Version +Internal-IP", _node),
    "namespaces": ("Status Age", lambda item: [item.get("status", {}).get("phase", "Active"), _age(item)]),
    "endpoints": ("Endpoints Age", _endpoints),
    "endpointslices": ("AddressType Ports Endpoints Age", _slice),
    "configmaps": ("Data Age", lambda item: [len(item.get("data", {})), _age(item)]),
    "secrets": (
        "Type Data Age",
        lambda item: [item.get("type", "Opaque"), len(item.get("data", {})), _age(item)],
    ),
    "leases": ("Holder Age", lambda item: [item.get("spec", {}).get("holderIdentity", ""), _age(item)]),
    "events": ("Last_Seen Type Reason Object Message", _event),
}


def table(kind: Kind, items: list[Object], revision: str, *, with_columns: bool = True) -> Object:
    """The Table of these objects; a plus before a column's name means ``-o wide`` only."""
    names, cells = _COLUMNS.get(kind.plural, ("Age", lambda item: [_age(item)]))
    columns = [("Name", 0)] if kind.plural != "events" else []
    columns += [(name.lstrip("+").replace("_", " "), int(name.startswith("+"))) for name in names.split()]
    rows = []
    for item in items:
        name = [item["metadata"]["name"]] if kind.plural != "events" else []
        partial = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": item["metadata"],
        }
        rows.append({"cells": [*name, *cells(item)], "object": partial})
    definitions = [
        {"name": name, "type": "string", "format": "name" if name == "Name" else "", "priority": priority}
        | {"description": name}
        for name, priority in columns
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": revision},
        "columnDefinitions": definitions if with_columns else [],
        "rows": rows,
    }
