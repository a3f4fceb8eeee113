"""The kinds of object the lab's Kubernetes knows, and the discovery documents about them. Facts only, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_READ_VERBS = ["delete", "get", "list", "watch"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object."""

    group: str
    """API group; empty for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    scalable: bool = False

    @property
    def api_version(self) -> str:
        """``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """Its name in messages: ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_ALL = ("all",)
NODES = Kind("", "v1", "nodes", "Node", namespaced=False, short=("no",))
NAMESPACES = Kind("", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",))
PODS = Kind("", "v1", "pods", "Pod", short=("po",), categories=_ALL)
SERVICES = Kind("", "v1", "services", "Service", short=("svc",), categories=_ALL)
ENDPOINTS = Kind("", "v1", "endpoints", "Endpoints", short=("ep",))
ENDPOINTSLICES = Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
CONFIGMAPS = Kind("", "v1", "configmaps", "ConfigMap", short=("cm",))
SECRETS = Kind("", "v1", "secrets", "Secret")
EVENTS = Kind("", "v1", "events", "Event", short=("ev",))
DEPLOYMENTS = Kind(
    "apps", "v1", "deployments", "Deployment", short=("deploy",), categories=_ALL, scalable=True
)
REPLICASETS = Kind("apps", "v1", "replicasets", "ReplicaSet", short=("rs",))
CONTROLLERREVISIONS = Kind("apps", "v1", "controllerrevisions", "ControllerRevision")
STATEFULSETS = Kind(
    "apps", "v1", "statefulsets", "StatefulSet", short=("sts",), categories=_ALL, scalable=True
)
INGRESSES = Kind("networking.k8s.io", "v1", "ingresses", "Ingress", short=("ing",))
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease")
KINDS = (
    NODES,
    NAMESPACES,
    PODS,
    SERVICES,
    ENDPOINTS,
    ENDPOINTSLICES,
    CONFIGMAPS,
    SECRETS,
    EVENTS,
    DEPLOYMENTS,
    STATEFULSETS,
    INGRESSES,
    LEASES,
)
REVISIONS = (REPLICASETS, CONTROLLERREVISIONS)
UNSUPPORTED = (
    *REVISIONS,
    Kind("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",)),
    Kind("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False, short=("pv",)),
    Kind("apps", "v1", "daemonsets", "DaemonSet", short=("ds",)),
    Kind("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", short=("hpa",)),
    Kind("batch", "v1", "jobs", "Job"),
    Kind("batch", "v1", "cronjobs", "CronJob", short=("cj",)),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",)),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", short=("pdb",)),
    Kind("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
)
"""Kinds that clients find, and are then told that the lab has not: an empty list would say that there is nothing to see."""
READ_ONLY = frozenset({EVENTS.plural, ENDPOINTS.plural, ENDPOINTSLICES.plural})
"""What the controllers alone write."""
BY_PLURAL = {kind.plural: kind for kind in KINDS + UNSUPPORTED}
GROUPS = tuple(dict.fromkeys(kind.group for kind in KINDS + UNSUPPORTED if kind.group))


def find(group: str, version: str, plural: str) -> Kind | None:
    """The kind served under this group, version and plural."""
    kind = BY_PLURAL.get(plural)
    return kind if kind is not None and (kind.group, kind.version) == (group, version) else None


def core_versions() -> dict[str, Any]:
    """``GET /api``."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def group_list() -> dict[str, Any]:
    """``GET /apis``."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(name) for name in GROUPS]}


def group(name: str) -> dict[str, Any]:
    """``GET /apis/GROUP``."""
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": [version],
        "preferredVersion": version,
    }


def resource_list(name: str) -> dict[str, Any]:
    """``GET /api/v1`` (an empty `name`) or ``GET /apis/GROUP/v1``."""
    resources: list[dict[str, Any]] = []
    for kind in KINDS + UNSUPPORTED:
        if kind.group != name:
            continue
        entry = {
            "name": kind.plural,
            "singularName": kind.kind.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": _READ_VERBS if kind.plural in READ_ONLY or kind in UNSUPPORTED else _VERBS,
            "shortNames": list(kind.short),
            "categories": list(kind.categories),
        }
        resources.append(entry)
        if kind.scalable:
            resources.append(
                {
                    "name": f"{kind.plural}/scale",
                    "singularName": "",
                    "namespaced": True,
                    "group": "autoscaling",
                    "version": "v1",
                    "kind": "Scale",
                    "verbs": ["get", "patch", "update"],
                }
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{name}/v1" if name else "v1",
        "resources": resources,
    }
