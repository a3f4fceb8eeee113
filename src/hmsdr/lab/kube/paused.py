"""A paused deployment goes on as it was: which template its pods come from until `kubectl rollout resume`. Pure.

Real Kubernetes has the old template in a ReplicaSet. The lab has none, so it is kept beside the deployment while it is paused.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

ANNOTATION = "lab.hmsdr/template-before-pause"


def is_paused(deployment: dict[str, Any]) -> bool:
    """Has somebody paused its rollout?"""
    return bool((deployment.get("spec") or {}).get("paused"))


def remember(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The new deployment, with the template that its pods come from as long as it is paused."""
    annotations = dict(new["metadata"].get("annotations") or {})
    annotations.pop(ANNOTATION, None)
    if is_paused(new):
        kept = (old["metadata"].get("annotations") or {}).get(ANNOTATION)
        if not is_paused(old):
            kept = json.dumps(old["spec"]["template"])
        if kept is not None:
            annotations[ANNOTATION] = kept
    metadata = {field: value for field, value in new["metadata"].items() if field != "annotations"}
    return new | {"metadata": metadata | ({"annotations": annotations} if annotations else {})}


def template(deployment: dict[str, Any]) -> dict[str, Any] | None:
    """What new pods are made from; None if it was paused from the beginning, when there are to be none."""
    if not is_paused(deployment):
        return dict(deployment["spec"]["template"])
    found: Any = None
    text = (deployment["metadata"].get("annotations") or {}).get(ANNOTATION)
    with suppress(ValueError):
        found = json.loads(text) if text else None
    return found if isinstance(found, dict) else None
