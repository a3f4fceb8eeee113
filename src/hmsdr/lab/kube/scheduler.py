"""The scheduler: which node a new pod runs on, or why on none. A region has one node; `kubectl cordon` closes it.

Room, `unschedulable` and nodeSelector are carried out; affinities and tolerations have nothing to choose from.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

from hmsdr.lab.kube import kinds
from hmsdr.lab.kube.events import record
from hmsdr.lab.kube.podstatus import is_ending
from hmsdr.lab.kube.rules import POD_ROOM
from hmsdr.lab.kube.store import Object, Store, key_of, now

_SCHEDULED = "PodScheduled"


def schedule(store: Store, pod: Object) -> None:
    """Give a pod its node; or write into its status, and once into an event, why it stays Pending."""
    if pod["spec"].get("nodeName") or is_ending(pod):
        return
    nodes = store.all(kinds.NODES)
    reasons: Counter[str] = Counter()
    for node in nodes:
        reason = _unfit(store, node, pod)
        if reason is None:
            name = key_of(node)[1]
            store.update(kinds.PODS, *key_of(pod), partial(_assign, name))
            record(store, pod, "Scheduled", f"Successfully assigned {'/'.join(key_of(pod))} to {name}")
            return
        reasons[reason] += 1
    words = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "no nodes"
    message = f"0/{len(nodes)} nodes are available: {words}."
    status = pod.get("status") or {}
    conditions = status.get("conditions") or []
    if any(each.get("type") == _SCHEDULED and each.get("message") == message for each in conditions):
        return
    condition = {
        "type": _SCHEDULED,
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastProbeTime": None,
        "lastTransitionTime": now(),
    }
    waiting = {"phase": "Pending", "conditions": [condition]}
    store.update(kinds.PODS, *key_of(pod), lambda item: item.update(status=waiting))
    record(store, pod, "FailedScheduling", message, warning=True)


def _assign(node: str, pod: Object) -> None:
    pod["spec"]["nodeName"] = node


def _unfit(store: Store, node: Object, pod: Object) -> str | None:
    name, spec = key_of(node)[1], node.get("spec") or {}
    if spec.get("unschedulable"):
        return "node(s) were unschedulable"
    labels = node["metadata"].get("labels") or {}
    if not (pod["spec"].get("nodeSelector") or {}).items() <= labels.items():
        return "node(s) didn't match Pod's node affinity/selector"
    if sum(each["spec"].get("nodeName") == name for each in store.all(kinds.PODS)) >= POD_ROOM:
        return "Too many pods"
    return None
