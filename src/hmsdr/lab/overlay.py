"""The lab's playbook: the shipped HMS playbook with this lab's endpoints, and seconds where it says minutes.

Same code, same path: only endpoints and figures differ from production, and every report says so by the
overlay's name. Writes files; starts nothing.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

import yaml

from hmsdr.lab.layout import PUBLIC_NAME, ZONE, Layout, RegionLayout

_HTTPS = 443
THRESHOLDS = {
    "probing": {"interval": "500ms", "timeout": "400ms"},
    "triggers": {"region_unreachable": "5s", "critical_services_unavailable": "10s"},
    "verification": {"deadline": "10s"},
    "gates": {"replication_lag": "30s", "last_known_lag_age": "10m", "backup_age": "24h"},
    "targets": {"rto": "60s", "rpo": "5s"},
}
"""The playbook's 5 minutes are 5 seconds here."""
LEASE = "4s"


def write_playbook(layout: Layout) -> None:
    """Write ``playbook.yaml`` and the secrets that it refers to."""
    directory = layout.directory / "secrets"
    directory.mkdir(mode=0o700, exist_ok=True)
    for name in (layout.agent_key.name, "aws-access-key-id", "aws-secret-access-key"):
        path = directory / name
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32) + "\n")
    text = "# Written by `hmsdr lab up`; it goes with the lab.\n" + yaml.safe_dump(
        _overlay(layout), sort_keys=False
    )
    layout.playbook.write_text(text)


def _overlay(layout: Layout) -> dict[str, Any]:
    key = "${file:secrets/aws-%s}"
    return {
        "extends": "hms",
        "overlay": "lab",
        "regions": {name: _region(layout, region) for name, region in layout.regions.items()},
        "traffic": {
            "public_url": _url(PUBLIC_NAME, layout),
            "ttl": 1,
            "resolvers": [str(layout.dns)],
            "ca_file": str(layout.ca_file),
        },
        "aws": {
            "endpoint_url": f"http://{layout.aws}",
            "access_key_id": key % "access-key-id",
            "secret_access_key": key % "secret-access-key",
        },
        "prometheus": {"url": f"http://{layout.prometheus}"},
        "database": {"lease": LEASE},
        "store": {"path": str(layout.store)},
        "thresholds": THRESHOLDS,
    }


def _region(layout: Layout, region: RegionLayout) -> dict[str, Any]:
    return {
        "kubernetes": {"kubeconfig": str(layout.kubeconfig)},
        "postgres": {"host": region.postgres.host, "port": region.postgres.port, "password": None},
        "redis": {"host": region.redis.host, "port": region.redis.port},
        "agent": {"url": f"http://{region.agent}", "key": "${file:secrets/agent.key}"},
        "ingress": {
            "url": _url(f"api-{region.ordinal_name}.{ZONE}", layout),
            "address": region.ingress_https.host,
        },
    }


def _url(name: str, layout: Layout) -> str:
    port = next(iter(layout.regions.values())).ingress_https.port
    return f"https://{name}" if port == _HTTPS else f"https://{name}:{port}"
