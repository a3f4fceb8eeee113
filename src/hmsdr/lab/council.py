"""The three sites of a lab with ``--ha``: at each a member of etcd and a controller; where they are and how they are started.

Those of a region die with it; the witness's belong to neither. Data only: the supervisor starts them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hmsdr.lab import binaries, probe
from hmsdr.lab.layout import Endpoint, Layout
from hmsdr.lab.servers import Server

ELECTION_MS, HEARTBEAT_MS = 500, 100
"""Half a second without its leader, and etcd elects another: far below the lab's lease of four."""
_ASK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Site:
    """What stands at one site, and in which directory."""

    name: str
    directory: Path
    etcd: Endpoint
    etcd_peer: Endpoint
    controller: Endpoint
    region: str | None
    """The region that it dies with; None for the witness."""

    @property
    def member(self) -> str:
        """Name of the etcd member."""
        return f"etcd-{self.name}"


def servers(layout: Layout) -> list[Server]:
    """Members and controllers of all three sites; none in a lab without them."""
    sites = sites_of(layout)
    return [each for site in sites.values() for each in (_etcd(site, sites), _controller(layout, site))]


def sites_of(layout: Layout) -> dict[str, Site]:
    """The sites by name; empty in a lab without them."""
    if layout.witness is None:
        return {}
    sites = {}
    for name, place in layout.sites.items():
        region = layout.regions.get(name)
        directory = layout.directory / "witness" if region is None else region.directory
        sites[name] = Site(name, directory, **place, region=None if region is None else name)
    return sites


def _etcd(site: Site, sites: Mapping[str, Site]) -> Server:
    peers = ",".join(f"{each.member}=http://{each.etcd_peer}" for each in sites.values())
    here, peer = f"http://{site.etcd}", f"http://{site.etcd_peer}"
    command = (
        str(binaries.find("etcd")), "--name", site.member, "--data-dir", str(site.directory / "etcd"),
        "--listen-client-urls", here, "--advertise-client-urls", here,
        "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
        "--initial-cluster", peers, "--initial-cluster-token", "hmsdr-lab", "--initial-cluster-state", "new",
        "--heartbeat-interval", str(HEARTBEAT_MS), "--election-timeout", str(ELECTION_MS),
        # A member that comes back from behind a cut must not depose a leader that a majority has.
        "--pre-vote=true",
        "--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000",
        "--log-level", "warn", "--logger", "zap", "--snapshot-count", "10000",
    )  # fmt: skip
    return Server(
        f"etcd {site.name}" if site.region is None else "etcd",
        site.region,
        command,
        site.directory,
        site.directory / "logs" / "etcd.log",
        lambda: probe.answers(site.etcd, "/health", deadline=_ASK_SECONDS),
        site.name,
    )


def _controller(layout: Layout, site: Site) -> Server:
    command = (
        sys.executable, "-m", "hmsdr", "controller", "--playbook", str(layout.playbook), "--site", site.name,
        "--state-directory", str(site.directory / "controller"),
    )  # fmt: skip
    return Server(
        f"controller {site.name}" if site.region is None else "controller",
        site.region,
        command,
        site.directory,
        site.directory / "logs" / "controller.log",
        lambda: probe.answers(site.controller, "/readyz", deadline=_ASK_SECONDS),
        site.name,
    )
