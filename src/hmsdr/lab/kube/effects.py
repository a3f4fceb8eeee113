"""Fields that real Kubernetes carries out and the lab takes and does not: what a write warns of. Pure.

What would change how the hospital runs is refused by `rules`; what is here only chooses among nodes, limits or isolates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hmsdr.lab.hms.ingress.routes import CLASS
from hmsdr.lab.kube import kinds
from hmsdr.lab.kube.kinds import Kind

_POD = [
    "affinity",
    "dnsConfig",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostname",
    "imagePullSecrets",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "resourceClaims",
    "resources",
    "runtimeClassName",
    "securityContext",
    "serviceAccountName",
    "shareProcessNamespace",
    "subdomain",
    "tolerations",
    "topologySpreadConstraints",
]
_CONTAINER = ["resources", "resizePolicy", "securityContext", "stdin", "tty"]
_SERVICE = [
    "externalIPs",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "publishNotReadyAddresses",
    "sessionAffinityConfig",
]


def without_effect(kind: Kind, item: dict[str, Any]) -> list[str]:
    """A sentence for each field of `item` that says something and changes nothing here."""
    spec = item.get("spec") or {}
    if kind is kinds.PODS:
        fields = list(_pod("spec", spec))
    elif kind in {kinds.DEPLOYMENTS, kinds.STATEFULSETS}:
        fields = list(_pod("spec.template.spec", (spec.get("template") or {}).get("spec") or {}))
    elif kind is kinds.SERVICES:
        fields = list(_service(spec))
    elif kind is kinds.INGRESSES:
        fields = list(_ingress(spec))
    else:
        fields = []
    return [f"{field}: accepted, and without effect in the lab" for field in fields]


def _said(at: str, holder: dict[str, Any], names: list[str]) -> Iterator[str]:
    return (f"{at}.{name}" for name in names if holder.get(name))


def _pod(at: str, spec: dict[str, Any]) -> Iterator[str]:
    yield from _said(at, spec, _POD)
    for index, container in enumerate(spec.get("containers") or ()):
        yield from _said(f"{at}.containers[{index}]", container, _CONTAINER)
        for number, port in enumerate(container.get("ports") or ()):
            yield from _said(f"{at}.containers[{index}].ports[{number}]", port, ["hostPort"])


def _service(spec: dict[str, Any]) -> Iterator[str]:
    yield from _said("spec", spec, _SERVICE)
    if spec.get("sessionAffinity", "None") != "None":
        yield "spec.sessionAffinity"
    for index, port in enumerate(spec.get("ports") or ()):
        yield from _said(f"spec.ports[{index}]", port, ["nodePort"])


def _ingress(spec: dict[str, Any]) -> Iterator[str]:
    if spec.get("ingressClassName", CLASS) != CLASS:
        yield f"spec.ingressClassName other than {CLASS!r}, and with it the whole ingress"
    yield from _said("spec", spec, ["tls"])
