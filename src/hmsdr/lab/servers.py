"""Which processes a lab's supervisor starts: command, directory, and how it shows that it is ready. Data only.

What runs inside a region's cluster (agents, databases, caches, services) is started by its kubelet, not from here.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from hmsdr.lab import probe
from hmsdr.lab.hms import monitoring
from hmsdr.lab.layout import CLUSTER_DOMAIN, Layout

_ASK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Server:
    """One process of the lab, as it is started. ``ready`` asks it once."""

    name: str
    region: str | None
    command: tuple[str, ...]
    directory: Path
    log: Path
    ready: Callable[[], Awaitable[bool]]
    site: str | None = None
    """Where it stands, when that is not its region: the witness."""

    @property
    def key(self) -> str:
        """Its name, unique in the lab."""
        return self.name if self.region is None else f"{self.name} {self.region}"


def shared(layout: Layout) -> list[Server]:
    """What belongs to neither region."""
    logs = layout.directory / "logs"
    name = f"postgres-primary.{CLUSTER_DOMAIN}"
    prometheus = layout.directory / "prometheus"
    return [
        Server(
            "aws",
            None,
            _python("hmsdr.lab.aws", layout),
            layout.directory / "aws",
            logs / "aws.log",
            lambda: probe.answers(layout.aws, "/__lab/healthz", deadline=_ASK_SECONDS),
        ),
        Server(
            "dns",
            None,
            _python("hmsdr.lab.dns", layout),
            layout.directory / "dns",
            logs / "dns.log",
            lambda: probe.resolves(layout.dns, name, deadline=_ASK_SECONDS),
        ),
        Server(
            "prometheus",
            None,
            tuple(monitoring.command(layout)),
            prometheus,
            logs / "prometheus.log",
            lambda: probe.answers(
                layout.prometheus, "/-/ready", deadline=_ASK_SECONDS, ca_file=layout.ca_file
            ),
        ),
        Server(
            "channels",
            None,
            _python("hmsdr.lab.channels", layout),
            layout.directory / "channels",
            logs / "channels.log",
            lambda: probe.answers(layout.channels, "/healthz", deadline=_ASK_SECONDS),
        ),
    ]


def of_region(layout: Layout, name: str) -> list[Server]:
    """What dies with the region `name`."""
    region = layout.regions[name]
    return [
        Server(
            "kubernetes",
            name,
            (*_python("hmsdr.lab.kube", layout), "--region", name),
            region.directory,
            region.logs / "kubernetes.log",
            lambda: probe.answers(region.kubernetes, "/readyz", deadline=_ASK_SECONDS),
        ),
        Server(
            "ingress",
            name,
            (*_python("hmsdr.lab.hms.ingress", layout), "--region", name),
            region.directory,
            region.logs / "ingress.log",
            lambda: probe.answers(region.ingress_http, "/__ingress/healthz", deadline=_ASK_SECONDS),
        ),
    ]


def _python(module: str, layout: Layout) -> tuple[str, ...]:
    return (sys.executable, "-m", module, "--lab", str(layout.directory))
