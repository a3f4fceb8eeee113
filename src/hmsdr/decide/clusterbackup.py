"""Which objects of a cluster are kept, in what form, in which order they are restored, and which are never accepted. Pure.

What the cluster itself puts into an object (status, identities, addresses it chose) is left out: restored elsewhere, it would be
refused, or be wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hmsdr.playbook.backups import KINDS

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as the API names it. ``group`` is empty for the core group."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version


_APPS, _RBAC, _NET = "apps", "rbac.authorization.k8s.io", "networking.k8s.io"
RESOURCES: Mapping[str, Resource] = {
    each.plural: each
    for each in (
        Resource("namespaces", "Namespace", namespaced=False),
        Resource("resourcequotas", "ResourceQuota"),
        Resource("limitranges", "LimitRange"),
        Resource("serviceaccounts", "ServiceAccount"),
        Resource("roles", "Role", _RBAC),
        Resource("rolebindings", "RoleBinding", _RBAC),
        Resource("secrets", "Secret"),
        Resource("configmaps", "ConfigMap"),
        Resource("persistentvolumeclaims", "PersistentVolumeClaim"),
        Resource("services", "Service"),
        Resource("deployments", "Deployment", _APPS),
        Resource("statefulsets", "StatefulSet", _APPS),
        Resource("daemonsets", "DaemonSet", _APPS),
        Resource("cronjobs", "CronJob", "batch"),
        Resource("horizontalpodautoscalers", "HorizontalPodAutoscaler", "autoscaling", "v2"),
        Resource("poddisruptionbudgets", "PodDisruptionBudget", "policy"),
        Resource("networkpolicies", "NetworkPolicy", _NET),
        Resource("ingresses", "Ingress", _NET),
    )
}
ORDER: Mapping[str, int] = {plural: number for number, plural in enumerate(KINDS)}
_METADATA = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
    "ownerReferences",
)
_ANNOTATIONS = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
)
_ANNOTATION_PREFIXES = ("pv.kubernetes.io/", "volume.kubernetes.io/", "control-plane.alpha.kubernetes.io/")
_OF_THE_CLUSTER = {
    "configmaps": ("kube-root-ca.crt",),
    "serviceaccounts": ("default",),
    "services": ("kubernetes",),
}
_TOKEN = "kubernetes.io/service-account-token"  # noqa: S105 - a type's name


def kept(plural: str, item: Object) -> bool:
    """Whether an object is somebody's, and not made by the cluster or by a controller of it."""
    metadata = item.get("metadata") or {}
    owned = any(owner.get("controller") for owner in metadata.get("ownerReferences") or [])
    ours = metadata.get("name") not in _OF_THE_CLUSTER.get(plural, ())
    return ours and not owned and not metadata.get("deletionTimestamp") and item.get("type") != _TOKEN


def cleaned(plural: str, item: Object) -> Object:
    """The object without status and without what the cluster put into it."""
    found: Object = copy.deepcopy(item)
    resource = RESOURCES[plural]
    found |= {"apiVersion": resource.api_version, "kind": resource.kind}
    found.pop("status", None)
    metadata = {
        key: value for key, value in (found.get("metadata") or {}).items() if key not in _METADATA and value
    }
    annotations = {
        key: value
        for key, value in (metadata.pop("annotations", None) or {}).items()
        if key not in _ANNOTATIONS and not key.startswith(_ANNOTATION_PREFIXES)
    }
    found["metadata"] = metadata | ({"annotations": annotations} if annotations else {})
    _forget_choices(plural, found)
    return found


def _forget_choices(plural: str, item: Object) -> None:
    """What the cluster chose: addresses, ports of nodes, volumes."""
    spec = item.get("spec")
    if plural == "serviceaccounts":
        item.pop("secrets", None)
    if not isinstance(spec, dict):
        return
    if plural == "namespaces":
        spec.pop("finalizers", None)
    elif plural == "persistentvolumeclaims":
        spec.pop("volumeName", None)
    elif plural == "services":
        if spec.get("clusterIP") != "None":
            spec.pop("clusterIP", None)
            spec.pop("clusterIPs", None)
        spec.pop("healthCheckNodePort", None)
        for port in spec.get("ports") or []:
            port.pop("nodePort", None)
    if not spec:
        item.pop("spec")


def file_name(plural: str, item: Object) -> str:
    """Where an object stands in an archive: sorted by name is the order of restoring."""
    metadata = item["metadata"]
    return f"{ORDER[plural]:02d}-{plural}/{metadata.get('namespace') or '_cluster'}/{metadata['name']}.json"


def objection(name: str, item: object, *, kinds: Collection[str], namespaces: Collection[str]) -> str:
    """Why the object in the file `name` of an archive is not accepted, in words; empty when it is."""
    plural = name.partition("/")[0].partition("-")[2]
    resource = RESOURCES.get(plural)
    if resource is None or plural not in kinds:
        return f"{plural or name!r} is none of the kinds that the playbook allows ({', '.join(kinds)})"
    if not isinstance(item, dict) or not isinstance(item.get("metadata"), dict):
        return "it is no object"
    if (item.get("apiVersion"), item.get("kind")) != (resource.api_version, resource.kind):
        return f"it is a {item.get('apiVersion')} {item.get('kind')}, and stands among {plural}"
    return _misplaced(name, plural, item, namespaces)


def _misplaced(name: str, plural: str, item: Object, namespaces: Collection[str]) -> str:
    resource, metadata = RESOURCES[plural], item["metadata"]
    inside = metadata.get("namespace") if resource.namespaced else metadata.get("name")
    if inside not in namespaces:
        return f"its namespace {inside!r} is none that the playbook allows ({', '.join(namespaces)})"
    if not resource.namespaced and metadata.get("namespace"):
        return "it has a namespace, and its kind has none"
    if not isinstance(metadata.get("name"), str) or file_name(plural, item) != name:
        return f"it is {metadata.get('name')!r} of {inside}, and stands under another name"
    return ""


def plural_of(name: str) -> str:
    """The kind of an object by its file's name."""
    return name.partition("/")[0].partition("-")[2]


def differences(wanted: object, found: object, at: str = "") -> list[str]:
    """The places in which two objects differ."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            place
            for key in sorted({*wanted, *found})
            for place in differences(wanted.get(key), found.get(key), f"{at}.{key}" if at else key)
        ]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(wanted, found, strict=True))
        return [
            place for number, (one, other) in pairs for place in differences(one, other, f"{at}[{number}]")
        ]
    return [] if wanted == found else [at or "all of it"]
