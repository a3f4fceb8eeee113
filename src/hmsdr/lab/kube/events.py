"""Events that `kubectl describe` shows: what happened to an object, the newest few hundred. They cause nothing."""

from __future__ import annotations

import uuid

from hmsdr.lab.kube import kinds
from hmsdr.lab.kube.store import Object, Store, now

_KEPT = 300


def record(store: Store, about: Object, reason: str, message: str, *, warning: bool = False) -> None:
    """Add an event about an object; the same one again raises its count."""
    word = "Warning" if warning else "Normal"
    metadata = about["metadata"]
    namespace = metadata.get("namespace", "default")
    events = store.all(kinds.EVENTS)
    for event in events:
        same = (event.get("involvedObject", {}).get("uid"), event.get("reason"), event.get("message"))
        if same == (metadata["uid"], reason, message):
            count = event.get("count", 1) + 1
            store.replace(kinds.EVENTS, event | {"count": count, "lastTimestamp": now()})
            return
    if len(events) >= _KEPT:
        oldest = min(events, key=lambda event: str(event.get("lastTimestamp")))["metadata"]
        store.remove(kinds.EVENTS, oldest["namespace"], oldest["name"])
    reference = {
        "kind": about["kind"],
        "apiVersion": about["apiVersion"],
        "namespace": namespace,
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    item = {
        "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
        "involvedObject": reference,
        "reason": reason,
        "message": message,
        "type": word,
        "count": 1,
        "source": {"component": "kubelet" if about["kind"] == "Pod" else "controller"},
        "firstTimestamp": now(),
        "lastTimestamp": now(),
    }
    store.create(kinds.EVENTS, item)
