"""Where everything of one lab is: directories, loopback addresses and ports, computed once, then only read.

A lab owns three /24 networks of 127.0.0.0/8: one for what is shared, one for each region, so that servers
keep their standard ports and several labs run side by side. This module decides nothing and starts nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REGIONS = ("us-east-1", "us-west-2")
WITNESS = "us-east-2"
NAMESPACE = "hms-system"
SERVICES = ("patient", "appointment", "clinical", "billing", "auth")
ZONE = "hms.enterprise.com"
PUBLIC_NAME = f"api.{ZONE}"
PROMETHEUS_NAME = f"prometheus.{ZONE}"
STATUS_BUCKETS = {name: f"hms-status-{name}" for name in REGIONS}
"""By region, the bucket of the status page: what it holds everybody may read."""
CLUSTER_DOMAIN = "hms.system.svc.cluster.local"
DATABASE = "postgres"
"""The hospital's database: the source's psql lines name none, which means the user's own."""
LAB_ENV = "HMSDR_LAB_ID"
REGION_ENV = "HMSDR_LAB_REGION"
"""Every process of a lab carries LAB_ENV, and each of a region REGION_ENV, in its environment."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a TCP (or, for DNS, UDP and TCP) port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RegionLayout:
    """One region: its directory and what listens where.

    ``pod_network`` is the first three octets of pod addresses; pods take .100 to .250 in it.
    ``ordinal_name`` is ``primary`` for the home region and ``secondary`` for the other: the names of the
    source's statefulsets and hosts (postgres-primary, redis-secondary), which never change with the role.
    """

    name: str
    ordinal_name: str
    directory: Path
    pod_network: str
    ingress_http: Endpoint
    ingress_https: Endpoint
    kubernetes: Endpoint
    postgres: Endpoint
    redis: Endpoint
    agent: Endpoint

    @property
    def postgres_data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.directory / "postgres" / "data"

    @property
    def redis_data(self) -> Path:
        """Redis's directory."""
        return self.directory / "redis"

    @property
    def logs(self) -> Path:
        """Where the region's processes write their output, one file each."""
        return self.directory / "logs"

    def pod_log(self, namespace: str, pod: str, *, previous: bool = False) -> Path:
        """What the container of a pod said, `previous`: the one before; whether or not there is any."""
        return self.logs / f"{namespace}_{pod}{'.previous' if previous else ''}.log"

    @property
    def database_log(self) -> Path:
        """What the region's database said, its agent and its guard included."""
        return self.pod_log(NAMESPACE, f"postgres-{self.ordinal_name}-0")


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole lab."""

    lab_id: str
    directory: Path
    user: str | None
    """Unprivileged user for servers that refuse root; None when the lab itself runs unprivileged."""
    regions: dict[str, RegionLayout]
    aws: Endpoint
    """The strict Route 53 and S3 layer: what everybody talks to."""
    moto: Endpoint
    """moto's server behind it: only the strict layer talks to it."""
    dns: Endpoint
    prometheus: Endpoint
    channels: Endpoint
    """Receivers of messages: webhooks as of Slack and Teams."""
    mail: Endpoint
    """SMTP, with the lab's mailboxes; the same process."""
    sites: dict[str, dict[str, Endpoint]]
    """At each site, the witness too: ``etcd``, ``etcd_peer`` and ``controller``."""
    witness: str | None = None
    """Name of the third site; None in a lab without etcd and controllers."""
    namespaces: bool = False
    """Whether each site stands in a network namespace of its own."""

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig with one context for each region, named like the region."""
        return self.directory / "kubeconfig"

    @property
    def playbook(self) -> Path:
        """The HMS playbook with this lab's overlay."""
        return self.directory / "playbook.yaml"

    @property
    def ca_file(self) -> Path:
        """Certificate of the lab's own authority; ``tls/ingress.pem`` and ``.key`` serve the ingresses."""
        return self.directory / "tls" / "ca.pem"

    @property
    def agent_key(self) -> Path:
        """File with the key that authenticates requests to agents."""
        return self.directory / "secrets" / "agent.key"

    @property
    def store(self) -> Path:
        """The SQLite store: event log and write authority. Belongs to neither region."""
        return self.directory / "state" / "hmsdr.db"

    @property
    def file(self) -> Path:
        """Where it is written down."""
        return self.directory / "lab.json"

    def save(self) -> None:
        """Write ``lab.json`` into the lab's directory."""
        self.file.write_text(json.dumps(asdict(self), default=str, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> Layout:
        """Read ``lab.json`` back.

        Raises:
            FileNotFoundError: no lab in `directory`.
        """
        raw: dict[str, Any] = json.loads((directory / "lab.json").read_text())
        regions = {
            name: RegionLayout(
                name=name,
                ordinal_name=value["ordinal_name"],
                directory=Path(value["directory"]),
                pod_network=value["pod_network"],
                **{
                    field: Endpoint(**value[field])
                    for field in ("ingress_http", "ingress_https", "kubernetes", "postgres", "redis", "agent")
                },
            )
            for name, value in raw["regions"].items()
        }
        return cls(
            lab_id=raw["lab_id"],
            directory=Path(raw["directory"]),
            user=raw["user"],
            regions=regions,
            aws=Endpoint(**raw["aws"]),
            moto=Endpoint(**raw["moto"]),
            dns=Endpoint(**raw["dns"]),
            prometheus=Endpoint(**raw["prometheus"]),
            channels=Endpoint(**raw["channels"]),
            mail=Endpoint(**raw["mail"]),
            sites={
                name: {kind: Endpoint(**each) for kind, each in place.items()}
                for name, place in raw["sites"].items()
            },
            witness=raw["witness"],
            namespaces=raw["namespaces"],
        )
