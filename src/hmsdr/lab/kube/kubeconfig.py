"""The kubeconfig of a lab: one context for each region, named like it. It writes that one file."""

from __future__ import annotations

import yaml

from hmsdr.lab.layout import NAMESPACE, Layout


def write(layout: Layout) -> None:
    """Write `layout.kubeconfig`."""
    names = list(layout.regions)
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": names[0],
        "clusters": [
            {"name": name, "cluster": {"server": f"http://{region.kubernetes}"}}
            for name, region in layout.regions.items()
        ],
        "users": [{"name": "lab", "user": {}}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": "lab", "namespace": NAMESPACE}}
            for name in names
        ],
    }
    layout.kubeconfig.write_text(yaml.safe_dump(content, sort_keys=False))
