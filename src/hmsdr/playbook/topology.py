"""The two regions, the witness, the services and what they run on, as the playbook names them.

Frozen data only. Hosts and ports are what hmsdr connects to; ``service_host`` is the name that the
hospital's applications use, which may differ.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from hmsdr.playbook.base import Duration, Model

Port = Annotated[int, Field(ge=1, le=65535)]
RegionName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]


class Kubernetes(Model):
    """How to reach a region's Kubernetes API: a kubeconfig and one of its contexts."""

    context: str
    kubeconfig: str | None = None
    """Path of the kubeconfig; None means $KUBECONFIG or ~/.kube/config, as kubectl does."""
    namespace: str = "hms-system"


class PostgresInstance(Model):
    """A region's PostgreSQL server."""

    instance: str
    """Its name in the write authority: unique in the playbook, set as PostgreSQL's cluster_name."""
    host: str
    port: Port = 5432
    service_host: str
    """The value that DATABASE_HOST takes in applications that use this instance."""
    database: str = "hms"
    user: str = "postgres"
    password: SecretStr | None = None
    statefulset: str
    slot: str
    """The replication slot on the other region's primary through which this instance follows it."""
    data_directory: str = "/var/lib/postgresql/data"


class RedisInstance(Model):
    """A region's Redis server."""

    host: str
    port: Port = 6379
    service_host: str
    """The value that REDIS_HOST takes in applications that use this instance."""
    password: SecretStr | None = None
    statefulset: str


class AgentEndpoint(Model):
    """The agent beside a region's database, see SAFETY rules 3, 5, 6, 9."""

    url: str
    key: SecretStr
    """Shared key with which requests to the agent are authenticated."""


class Ingress(Model):
    """A region's way in."""

    url: str
    """The region's own path, for example https://api-primary.hms.enterprise.com."""
    address: str
    """Value of the region's public record: an IPv4 address, or a name when the record is a CNAME."""


class Backups(Model):
    """Where a region's backups lie."""

    bucket: str
    prefix: str = "databases/"
    copy_bucket: str
    """Bucket in another region that keeps a copy, so that no backup lies only where it is needed."""


class Region(Model):
    """One region of the hospital."""

    title: str
    kubernetes: Kubernetes
    postgres: PostgresInstance
    redis: RedisInstance
    agent: AgentEndpoint
    ingress: Ingress
    backups: Backups


class Witness(Model):
    """The third site: it observes and votes, and serves no patients."""

    name: str
    title: str


class Replicas(Model):
    """How many pods a service runs in the active region, and in the standby as its pilot light."""

    active: Annotated[int, Field(ge=1)]
    standby: Annotated[int, Field(ge=0)]


class Service(Model):
    """One of the hospital's services."""

    title: str
    deployment: str
    health_path: Annotated[str, Field(pattern=r"^/")]
    """Path of its health check below the public URL and below each region's ingress URL."""
    critical: bool
    replicas: Replicas
    tables: tuple[str, ...] = ()
    """Tables that hold its data, for consistency checks."""


class Aws(Model):
    """How to reach the AWS APIs; unset fields mean the SDK's own defaults."""

    region: str = "us-east-1"
    endpoint_url: str | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None


class Traffic(Model):
    """How users find the active region: a public name with one weighted record for each region."""

    public_url: str
    """What users open: scheme, name and, where it is not the default, port."""
    hosted_zone: str
    """Name of the Route 53 hosted zone, with or without the final dot."""
    record: str
    record_type: Literal["A", "CNAME"] = "A"
    ttl: Annotated[int, Field(ge=1, le=86400)] = 60
    epoch_record: str
    """Name of the TXT record that carries the epoch in the same batch (SAFETY rule 12)."""
    resolvers: tuple[str, ...] = ()
    """DNS servers to ask, ``address`` or ``address:port``; empty means the system's."""
    ca_file: str | None = None
    """Certificate authority for the hospital's own endpoints; None means the system's store."""


class Prometheus(Model):
    """Where Prometheus answers."""

    url: str


class DatabasePolicy(Model):
    """What is promised about the database."""

    mode: Literal["asynchronous", "synchronous"] = "asynchronous"
    lease: Duration
    """Length of the right to write (SAFETY rules 1, 4, 8)."""
    drift_margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Largest difference of two clocks' rates, as a fraction (SAFETY, assumptions)."""
    failover_without_fencing_proof: bool = False
    """Fail over although nobody proved the old primary dead. Off by default; every use is logged."""


class CachePolicy(Model):
    """What is promised about Redis (SAFETY rule 13)."""

    policy: Literal["loss-tolerant"] = "loss-tolerant"
    """Loss-tolerant: not fenced, flushed at promotion; applications must survive its loss."""


class Store(Model):
    """Where the event log and the write authority are kept."""

    kind: Literal["sqlite"] = "sqlite"
    path: str
    """File of the SQLite store; relative paths start at the playbook's directory."""
