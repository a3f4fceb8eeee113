"""A service's endpoints once more, as the EndpointSlice that newer clients read (`kubectl describe` among them). Pure."""

from __future__ import annotations

from typing import Any

from hmsdr.lab.kube.store import Object

SERVICE_LABEL = "kubernetes.io/service-name"


def of(endpoints: Object) -> Object:
    """The slice of one Endpoints object; it is owned by the service of the same name."""
    meta = endpoints["metadata"]
    ports: list[Any] = []
    found: list[Any] = []
    for subset in endpoints.get("subsets", []):
        ports = [
            {"name": port.get("name", ""), "port": port["port"], "protocol": port.get("protocol", "TCP")}
            for port in subset.get("ports", [])
        ]
        for key, ready in (("addresses", True), ("notReadyAddresses", False)):
            found += [
                {
                    "addresses": [address["ip"]],
                    "conditions": {"ready": ready, "serving": ready, "terminating": False},
                    "targetRef": address.get("targetRef"),
                }
                for address in subset.get(key, [])
            ]
    return {
        "metadata": {
            "name": f"{meta['name']}-lab",
            "namespace": meta["namespace"],
            "labels": {SERVICE_LABEL: meta["name"]},
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": found,
    }
