"""What becomes of a namespace that is deleted: all that is in it goes first, its pods in their own time, then itself."""

from __future__ import annotations

from hmsdr.lab.kube import kinds
from hmsdr.lab.kube.podstatus import is_ending
from hmsdr.lab.kube.store import Object, Store, key_of


def empty(store: Store, namespace: Object) -> None:
    """The next step of a namespace's deletion, if that was asked for."""
    if not namespace["metadata"].get("deletionTimestamp"):
        return
    name = key_of(namespace)[1]
    for kind in kinds.KINDS:
        if not kind.namespaced or kind is kinds.EVENTS:
            continue
        for item in store.all(kind, name):
            if kind is not kinds.PODS or not is_ending(item):
                store.delete(kind, *key_of(item))
    if store.all(kinds.PODS, name):
        return
    for event in store.all(kinds.EVENTS, name):
        store.remove(kinds.EVENTS, *key_of(event))
    store.remove(kinds.NAMESPACES, "", name)
