"""Prometheus for a lab: its configuration and its command line. Writes one file; starts nothing."""

from __future__ import annotations

from pathlib import Path

import yaml

from hmsdr.lab.binaries import find
from hmsdr.lab.layout import Layout

_INTERVAL = "1s"
_TIMEOUT = "900ms"
_RETENTION = "6h"
_WEB = "prometheus-web.yml"
_ALERTS = [
    {
        "alert": "RegionUnreachable",
        "expr": 'up{job="ingress"} == 0',
        "for": "5s",
        "annotations": {"summary": "The ingress of {{ $labels.region }} does not answer"},
    },
    {
        "alert": "ServicePodDown",
        "expr": 'up{job="services"} == 0',
        "for": "5s",
        "annotations": {
            "summary": "{{ $labels.instance }} of {{ $labels.region }} does not answer its scrape"
        },
    },
    {
        "alert": "ReplicationLag",
        "expr": "hmsdr_replication_lag_seconds > 5 or hmsdr_replication_streaming == 0",
        "for": "5s",
        "annotations": {
            "summary": "The standby in {{ $labels.region }} is behind: a failover would lose writes"
        },
    },
    {
        "alert": "NobodyMayWrite",
        "expr": "sum(hmsdr_lease_held) < 1",
        "for": "5s",
        "annotations": {"summary": "No region holds the right to write"},
    },
    {
        "alert": "RegionWithoutPods",
        "expr": 'count by (region) (up{job="services"}) < 5',
        "for": "10s",
        "annotations": {"summary": "{{ $labels.region }} has fewer pods than services"},
    },
]


def write_config(layout: Layout) -> Path:
    """Write ``prometheus.yml`` into the lab's directory; gives its path.

    Both ingresses are scraped as job ``ingress``, the agents beside the databases as ``agents``. Each ingress also lists its region's pods, which are job ``services``: when a
    region is gone, the last list stays, and its pods are seen as down.
    """
    regions = layout.regions.values()
    rules = layout.directory / "alerts.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "hms", "rules": _ALERTS}]}, sort_keys=False))
    config = {
        "rule_files": [str(rules)],
        "global": {
            "scrape_interval": _INTERVAL,
            "scrape_timeout": _TIMEOUT,
            "evaluation_interval": _INTERVAL,
        },
        "scrape_configs": [
            {
                "job_name": "ingress",
                "static_configs": [
                    {"targets": [str(region.ingress_http)], "labels": {"region": region.name}}
                    for region in regions
                ],
            },
            {
                "job_name": "agents",
                "static_configs": [
                    {"targets": [str(region.agent)], "labels": {"region": region.name}} for region in regions
                ],
            },
            {
                "job_name": "services",
                "http_sd_configs": [
                    {"url": f"http://{region.ingress_http}/__ingress/targets", "refresh_interval": _INTERVAL}
                    for region in regions
                ],
            },
        ],
    }
    tls = {"cert_file": str(layout.ca_file.with_name("ingress.pem"))}
    tls["key_file"] = str(layout.ca_file.with_name("ingress.key"))
    (layout.directory / _WEB).write_text(yaml.safe_dump({"tls_server_config": tls}))
    path = layout.directory / "prometheus.yml"
    path.write_text("# Written by the lab; it goes with the lab.\n" + yaml.safe_dump(config, sort_keys=False))
    return path


def command(layout: Layout) -> list[str]:
    """The command that serves it, with its data in the lab's directory.

    Raises:
        RefusedError: Prometheus is not installed.
    """
    return [
        str(find("prometheus")),
        f"--config.file={layout.directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={layout.directory / 'prometheus'}",
        f"--storage.tsdb.retention.time={_RETENTION}",
        f"--web.listen-address={layout.prometheus}",
        f"--web.config.file={layout.directory / _WEB}",
        "--log.level=warn",
    ]
