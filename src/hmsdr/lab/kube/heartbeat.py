"""The node's sign of life: the Lease that a kubelet renews, which `kubectl describe node` shows. It writes nothing else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from hmsdr.lab.kube import kinds
from hmsdr.lab.kube.store import Object, Store

NAMESPACE = "kube-node-lease"
_SECONDS, _RENEW_SECONDS = 40, 10.0
"""How long it holds, and how often it is renewed; as in real Kubernetes."""


async def beat(store: Store, node: str) -> None:
    """Renew the lease of `node`, till cancelled."""
    while True:
        renew(store, node)
        await asyncio.sleep(_RENEW_SECONDS)


def renew(store: Store, node: str) -> None:
    """Renew it now; what is missing is made, also the namespace, which a lab of an older version lacks."""
    if store.find(kinds.NAMESPACES, "", NAMESPACE) is None:
        item: Object = {"metadata": {"name": NAMESPACE}, "spec": {}, "status": {"phase": "Active"}}
        store.create(kinds.NAMESPACES, item)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec: dict[str, Any] = {"holderIdentity": node, "leaseDurationSeconds": _SECONDS, "renewTime": stamp}
    found = store.find(kinds.LEASES, NAMESPACE, node)
    if found is None:
        owner = store.find(kinds.NODES, "", node)
        references = [
            {"apiVersion": "v1", "kind": "Node", "name": node, "uid": owner["metadata"]["uid"]}
            for owner in [owner]
            if owner is not None
        ]
        metadata = {"name": node, "namespace": NAMESPACE, "ownerReferences": references}
        store.create(kinds.LEASES, {"metadata": metadata, "spec": spec})
    else:
        store.replace(kinds.LEASES, found | {"spec": spec})
