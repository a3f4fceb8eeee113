"""A name of ``*``: the source playbook types ``kubectl set env deployment/* --all``, and means every deployment.

kubectl asks for one object of that name and patches it. It gets one that stands for all, and its patch is applied to each.
Real Kubernetes has nothing of the kind; everything else behaves as there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hmsdr.lab.kube import kinds
from hmsdr.lab.kube.admission import Admitted
from hmsdr.lab.kube.kinds import Kind
from hmsdr.lab.kube.status import not_found
from hmsdr.lab.kube.store import Object, Store

NAME = "*"


def stands_for_all(kind: Kind, name: str) -> bool:
    """Whether the request means every object of its kind."""
    return kind is kinds.DEPLOYMENTS and name == NAME


def representative(store: Store, namespace: str) -> Object:
    """One deployment under the name ``*``.

    Raises:
        ApiError: there is none.
    """
    items = store.all(kinds.DEPLOYMENTS, namespace)
    if not items:
        raise not_found(kinds.DEPLOYMENTS.qualified, NAME)
    item: Object = copy.deepcopy(items[0])
    item["metadata"]["name"] = NAME
    return item


def patch_each(store: Store, namespace: str, change: Any, apply: Callable[[Object, Any], Admitted]) -> Object:
    """Apply `change`, which names the representative's containers, to every deployment, or to none; gives the representative."""
    first = _container(representative(store, namespace))
    made = [
        apply(item, _renamed(change, first, _container(item)))
        for item in store.all(kinds.DEPLOYMENTS, namespace)
    ]
    for each in made:
        store.replace(kinds.DEPLOYMENTS, each.item)
    return representative(store, namespace)


def _container(item: Object) -> str:
    return str(item["spec"]["template"]["spec"]["containers"][0]["name"])


def _renamed(change: Any, old: str, new: str) -> Any:
    """The patch for a deployment whose container has another name."""
    change = copy.deepcopy(change)
    spec = change
    for step in ("spec", "template", "spec"):
        spec = spec.get(step) if isinstance(spec, dict) else None
    for field in ("containers", "$setElementOrder/containers"):
        entries = spec.get(field) if isinstance(spec, dict) else None
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("name") == old:
                entry["name"] = new
    return change
