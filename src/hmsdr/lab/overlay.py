"""The lab's playbook: the shipped HMS playbook with this lab's endpoints, and seconds where it says minutes.

Same code, same path: only endpoints and figures differ from production, and every report says so by the
overlay's name. Writes files; starts nothing.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

import yaml

from hmsdr.lab.layout import (
    DATABASE,
    PUBLIC_NAME,
    REGIONS,
    STATUS_BUCKETS,
    WITNESS,
    ZONE,
    Layout,
    RegionLayout,
)

_HTTPS = 443
THRESHOLDS = {
    "probing": {"interval": "500ms", "timeout": "400ms"},
    "triggers": {
        "region_unreachable": "5s",
        "critical_services_unavailable": "10s",
        "critical_services_recovery": "2s",
    },
    "verification": {"deadline": "10s"},
    "gates": {"replication_lag": "5s", "last_known_lag_age": "10m", "backup_age": "24h"},
    "targets": {"rto": "60s", "rpo": "5s"},
    "automation": {"veto": "5s", "cool_down": "60s"},
}
"""The playbook's 5 minutes are 5 seconds here."""
SWITCHBACK = {
    "hold": "4s",
    "patience": "60s",
    "requests": 10,
    "split_tolerance": 30,
    "error_ratio": 0.02,
    "error_rise": 0.02,
    "latency_p50": "1s",
    "latency_p95": "1800ms",
    "latency_p99": "2s",
    "latency_factor": 20.0,
    "latency_floor": "1s",
    "saturation": 1.5,
    "stable_for": "5s",
}
"""Its 5 minutes are 4 seconds. A handful of clinics on a machine that does everything at once: shares and latencies scatter."""
LEASE = "4s"
WEBHOOKS = ("slack", "teams")
MAIL_DOMAIN = "hospital.example"
MAILBOXES = {
    "clinical-staff": "email",
    "administrative-staff": "email",
    "management": "email",
    "partners": "direct",
}
"""Audience to the channel of it that is mail here; the mailbox is called like the audience."""

GATEWAY_NUMBER = "+12025550190"
"""From which the lab's gateway sends and calls."""
NUMBERS = {"clinical-staff": ("sms", "+12025550191"), "patients": ("automated-message", "+12025550192")}
"""Audience to the channel of it that the gateway carries, and the number there."""


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
    for kind in WEBHOOKS:
        path = directory / f"{kind}-webhook"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(f"http://{layout.channels}/{kind}/{secrets.token_urlsafe(24)}\n")
    for name in MAILBOXES:
        path = directory / f"mail-{name}"
        path.touch(mode=0o600)
        to = f"{name}@{MAIL_DOMAIN}"
        path.write_text(f"mailto://{layout.mail}?mode=insecure&from=hmsdr@{MAIL_DOMAIN}&to={to}\n")
    _gateway(layout)
    text = "# Written by `hmsdr lab up`; it goes with the lab.\n" + yaml.safe_dump(
        _overlay(layout), sort_keys=False
    )
    layout.playbook.write_text(text)


def webhook_token(layout: Layout, kind: str) -> str:
    """The secret part of the webhook's URL of `kind` (``slack``, ``teams``)."""
    return (layout.directory / "secrets" / f"{kind}-webhook").read_text().strip().rpartition("/")[2]


def _gateway(layout: Layout) -> None:
    """The gateway's account, once; and the URLs that name it."""
    directory = layout.directory / "secrets"
    path = directory / "gateway"
    if not path.exists():
        path.touch(mode=0o600)
        account = f"AC{secrets.token_hex(16)}:{secrets.token_hex(16)}"
        path.write_text(f"twilio+http://{account}@{layout.channels}/{GATEWAY_NUMBER}\n")
    url = path.read_text().strip()
    for name, (_, number) in NUMBERS.items():
        own = directory / f"gateway-{name}"
        own.touch(mode=0o600)
        own.write_text(f"{url}/{number}\n")


def gateway_account(layout: Layout) -> tuple[str, str, str]:
    """Account, token and number of the lab's gateway."""
    url = (layout.directory / "secrets" / "gateway").read_text().strip()
    account, _, rest = url.partition("://")[2].partition(":")
    return account, rest.partition("@")[0], url.rpartition("/")[2]


def _audiences() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, channel in MAILBOXES.items():
        found.setdefault(name, {})[channel] = f"${{file:secrets/mail-{name}}}"
    for name, (channel, _) in NUMBERS.items():
        found.setdefault(name, {})[channel] = f"${{file:secrets/gateway-{name}}}"
    return {name: {"endpoints": endpoints} for name, endpoints in found.items()}


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
        "prometheus": {"url": f"https://{layout.prometheus}", "fresh": "5s"},
        "procedures": {"switchback": SWITCHBACK},
        "database": {"lease": LEASE, "integrity": {"every": "1m", "at_most": "20s"}},
        "backups": {
            "compression": "none",  # the lab's disk is near, and its processors are few
            "kubernetes": {
                "recipients": [_age_recipient(layout)],
                "identity": "${file:secrets/backup-identity}",
            },
        },
        "channels": {
            "endpoints": {
                **{kind: f"${{file:secrets/{kind}-webhook}}" for kind in WEBHOOKS},
                **dict.fromkeys(("sms", "phone"), "${file:secrets/gateway}"),
            },
            "war_room": {"channel": "slack:#war-room", "bridge": "https://meet.hospital.example/war-room"},
        },
        "audiences": _audiences(),
        "status_page": {
            "url": f"http://{layout.aws}/{STATUS_BUCKETS[REGIONS[0]]}",
            "buckets": STATUS_BUCKETS,
        },
        "watch": {
            "chat": {"url": f"http://{layout.channels}/healthz", "interval": "1s", "timeout": "500ms"},
            "monitoring": {"url": f"https://{layout.prometheus}/-/healthy"},
        },
        "store": _store(layout),
        **_witness(layout),
        "thresholds": THRESHOLDS,
    }


def _age_recipient(layout: Layout) -> str:
    """The public key for secrets in backups of the cluster; the private one is made when there is none."""
    import pyrage  # noqa: PLC0415 - a library for backups, loaded when a lab is made

    path = layout.directory / "secrets" / "backup-identity"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    return str(pyrage.x25519.Identity.from_str(path.read_text().strip()).to_public())


def _store(layout: Layout) -> dict[str, Any]:
    if layout.witness is None:
        return {"path": str(layout.store)}
    endpoints = {name: f"http://{place['etcd']}" for name, place in layout.sites.items()}
    return {"kind": "etcd", "path": str(layout.store), "etcd": {"endpoints": endpoints, "deadline": "500ms"}}


def _witness(layout: Layout) -> dict[str, Any]:
    url = f"http://{layout.sites[WITNESS]['controller']}"
    return {"witness": {"name": WITNESS, "controller": {"url": url}}}


def _region(layout: Layout, region: RegionLayout) -> dict[str, Any]:
    return {
        "controller": {"url": f"http://{layout.sites[region.name]['controller']}"},
        "kubernetes": {"kubeconfig": str(layout.kubeconfig)},
        "postgres": {
            "host": region.postgres.host,
            "port": region.postgres.port,
            "database": DATABASE,
            "password": None,
            "data_directory": str(region.postgres_data),
        },
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
