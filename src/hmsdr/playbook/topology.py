"""The two regions, the witness, the services and what they run on, as the playbook names them.

Frozen data only. Hosts and ports are what hmsdr connects to; ``service_host`` is the name that the
hospital's applications use, which may differ.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from hmsdr.playbook.base import Duration, MayBeBlank, PathText, Secret, Section
from hmsdr.playbook.names import (
    AbsolutePath,
    Bucket,
    DnsName,
    Host,
    HttpUrl,
    Identifier,
    Instance,
    Namespace,
    Resolver,
    Table,
    UrlPath,
    Workload,
)

MIB = 1 << 20
Port = Annotated[int, Field(ge=1, le=65535)]
_MOST_PODS = 2**31 - 1
"""Kubernetes takes no larger number of replicas."""
RegionName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)]


KeyPrefix = Annotated[str, Field(pattern=r"^([A-Za-z0-9!_.*'()-]+/)*$"), MayBeBlank()]
"""Of keys in a bucket: nothing, or directories, each with its slash."""


class Kubernetes(Section):
    """How to reach a region's Kubernetes API: a kubeconfig and one of its contexts."""

    context: str
    """Context of the kubeconfig."""
    kubeconfig: PathText | None = None
    """Path of the kubeconfig; None means $KUBECONFIG or ~/.kube/config, as kubectl does."""
    namespace: Namespace = "hms-system"
    """Namespace of the hospital's services and databases."""


class PostgresInstance(Section):
    """A region's PostgreSQL server."""

    instance: Instance
    """Its name in the write authority: unique in the playbook, set as PostgreSQL's cluster_name."""
    host: Host
    """Name or address that hmsdr connects to."""
    port: Port = 5432
    """TCP port."""
    service_host: Host
    """The value that DATABASE_HOST takes in applications that use this instance."""
    database: Identifier = "hms"
    """Database of the hospital."""
    user: Identifier = "postgres"
    """User that hmsdr connects as; it may promote and see pg_stat_replication."""
    password: Secret | None = None
    """Password of the user; unset means the server asks for none."""
    statefulset: Workload
    """StatefulSet in which the server runs."""
    slot: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,63}$")]
    """The replication slot on the other region's primary through which this instance follows it."""
    data_directory: AbsolutePath = "/var/lib/postgresql/data"
    """Data directory inside the pod, for the commands that people run."""


class RedisInstance(Section):
    """A region's Redis server."""

    host: Host
    """Name or address that hmsdr connects to."""
    port: Port = 6379
    """TCP port."""
    service_host: Host
    """The value that REDIS_HOST takes in applications that use this instance."""
    password: Secret | None = None
    """Password; unset means the server asks for none."""
    statefulset: Workload
    """StatefulSet in which the server runs."""


class AgentEndpoint(Section):
    """The agent beside a region's database, see SAFETY rules 3, 5, 6, 9."""

    url: HttpUrl
    """Where the agent answers."""
    key: Secret
    """Shared key with which requests to the agent are authenticated."""


class ControllerEndpoint(Section):
    """The controller of a site."""

    url: HttpUrl
    """Where it answers: `/healthz`, `/readyz`, `/metrics`, `/v1/view`."""


class Ingress(Section):
    """A region's way in."""

    url: HttpUrl
    """The region's own path, for example https://api-primary.hms.enterprise.com."""
    address: Host
    """Value of the region's public record: an IPv4 address, or a name when the record is a CNAME."""


class Backups(Section):
    """Where a region's backups lie."""

    bucket: Bucket
    """Bucket of the region's own backups."""
    prefix: KeyPrefix = "databases/"
    """Key prefix of database backups in the bucket."""
    copy_bucket: Bucket
    """Bucket in another region that keeps a copy, so that no backup lies only where it is needed."""


class Region(Section):
    """One region of the hospital."""

    title: str
    """What people call the region."""
    kubernetes: Kubernetes
    """Its Kubernetes API."""
    postgres: PostgresInstance
    """Its PostgreSQL server."""
    redis: RedisInstance
    """Its Redis server."""
    agent: AgentEndpoint
    """Its agent."""
    ingress: Ingress
    """Its way in."""
    backups: Backups
    """Its backups."""
    controller: ControllerEndpoint | None = None
    """Its controller."""


class Witness(Section):
    """The third site: it observes and votes, and serves no patients."""

    name: RegionName
    """Name of the site; not one of the regions."""
    title: str
    """What people call it."""
    controller: ControllerEndpoint | None = None
    """Its controller."""


class Replicas(Section):
    """How many pods a service runs in the active region, and in the standby as its pilot light."""

    active: Annotated[int, Field(ge=1, le=_MOST_PODS)]
    """Pods in the active region."""
    standby: Annotated[int, Field(ge=0, le=_MOST_PODS)]
    """Pods in the standby region."""


class Service(Section):
    """One of the hospital's services."""

    title: str
    """What people call the service."""
    deployment: Workload
    """Deployment in which it runs."""
    health_path: UrlPath
    """Path of its health check below the public URL and below each region's ingress URL."""
    critical: bool
    """Whether the hospital cannot work without it; critical services drive a trigger of failover."""
    replicas: Replicas
    """How many pods it runs."""
    tables: tuple[Table, ...] = ()
    """Tables that hold its data, for consistency checks."""
    downtime: str | None = None
    """The downtime procedure that the wards follow while it is away."""


class Aws(Section):
    """How to reach the AWS APIs; unset fields mean the SDK's own defaults."""

    region: RegionName = "us-east-1"
    """Region of the API endpoints."""
    endpoint_url: HttpUrl | None = None
    """URL of all AWS APIs, for tests and the lab."""
    access_key_id: Secret | None = None
    """Access key; unset means the SDK's own credentials."""
    secret_access_key: Secret | None = None
    """Secret of the access key."""


class Traffic(Section):
    """How users find the active region: a public name with one weighted record for each region."""

    public_url: HttpUrl
    """What users open: scheme, name and, where it is not the default, port."""
    hosted_zone: DnsName
    """Name of the Route 53 hosted zone, with or without the final dot."""
    record: DnsName
    """Name of the weighted records."""
    record_type: Literal["A", "CNAME"] = "A"
    """A for addresses, CNAME for names."""
    ttl: Annotated[int, Field(ge=1, le=86400)] = 60
    """Seconds that resolvers may keep an answer."""
    epoch_record: DnsName
    """Name of the TXT record that carries the epoch in the same batch (SAFETY rule 12)."""
    resolvers: tuple[Resolver, ...] = ()
    """DNS servers to ask, ``address`` or ``address:port``; empty means the system's."""
    ca_file: PathText | None = None
    """Certificate authority for the hospital's own endpoints; None means the system's store."""


_REQUESTS = 'ingress_requests_total{region="$region",kind="user"'


class Signals(Section):
    """What users feel and how full a region is, in PromQL: ``$region`` and ``$window`` stand for what is asked about.

    Each gives one number.
    """

    requests: str = f"sum(increase({_REQUESTS}}}[$window])) or vector(0)"
    """Requests of users that the region answered within the window."""
    errors: str = f'sum(increase({_REQUESTS},status=~"5.."}}[$window])) or vector(0)'
    """Those of them that failed."""
    latency: str = (
        "histogram_quantile($quantile, sum by (le) "
        '(rate(ingress_request_duration_seconds_bucket{region="$region"}[$window])))'
    )
    """Seconds within which ``$quantile`` of them were answered."""
    saturation: str = 'max(rate(process_cpu_seconds_total{region="$region",job="services"}[$window]))'
    """How full the fullest part of the region is; 1 is all there is."""
    up: str = 'min(up{region="$region",job="ingress"})'
    """1 while all that measures it there answers, 0 when something does not."""
    measured: str = 'max(timestamp(up{region="$region",job="ingress"}))'
    """When it was measured last, in unix seconds: what is older says nothing of now."""


class Prometheus(Section):
    """Where Prometheus answers."""

    url: HttpUrl
    """Base URL of its HTTP API."""
    region_label: Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")] = "region"
    """Label that names the region in its metrics."""
    signals: Signals = Signals()
    """What users feel, for switching back."""
    fresh: Duration = timedelta(minutes=1)
    """A measurement that is older, or of a time that is further away from ours, counts as none."""
    alerts_key: Secret | None = None
    """What Alertmanager shows as its bearer token to `hmsdr incident keep --listen`; unset, nothing listens."""


class IntegrityChecks(Section):
    """How the data are looked at for damage, on primary and standby (pg_amcheck)."""

    every: Duration = timedelta(hours=6)
    """From one complete check to the next."""
    at_most: Duration = timedelta(hours=1)
    """A check that takes longer is given up, and proves nothing."""


class DataComparison(Section):
    """How the data of both regions are compared (`hmsdr compare`)."""

    rate: Annotated[int, Field(ge=MIB, le=MIB * MIB)] = 256 * MIB
    """Bytes a second that are read of the primary, at most."""
    jobs: Annotated[int, Field(ge=1, le=16)] = 2
    """Chunks that are compared at a time, each with a session on both sides."""
    at_most: Duration = timedelta(hours=12)
    """A comparison that takes longer is given up."""


class DatabasePolicy(Section):
    """What is promised about the database."""

    mode: Literal["asynchronous", "synchronous"] = "asynchronous"
    """Asynchronous: a failover may lose the last writes. Synchronous, where writes wait for the standby, is refused: it is not kept yet."""
    lease: Duration
    """Length of the right to write (SAFETY rules 1, 4, 8)."""
    drift_margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Largest difference of two clocks' rates, as a fraction (SAFETY, assumptions)."""
    integrity: IntegrityChecks = IntegrityChecks()
    """When the data are checked for damage."""
    comparison: DataComparison = DataComparison()
    """How the data of both regions are compared."""
    failover_without_fencing_proof: bool = False
    """Fail over although nobody proved the old primary dead. Off by default; every use is logged."""


class CachePolicy(Section):
    """What is promised about Redis (SAFETY rule 13)."""

    policy: Literal["loss-tolerant"] = "loss-tolerant"
    """Loss-tolerant: not fenced, flushed at promotion; applications must survive its loss."""


class EtcdCluster(Section):
    """The etcd cluster across the three sites."""

    endpoints: Annotated[dict[RegionName, HttpUrl], Field(min_length=1)]
    """Client URL of the member at each site: both regions and the witness."""
    prefix: Annotated[str, Field(pattern=r"^/[A-Za-z0-9/_.-]*[A-Za-z0-9_.-]$")] = "/hmsdr"
    """Prefix of all keys: one for each hospital."""
    deadline: Duration = timedelta(seconds=1)
    """How long one member is given for one answer."""
    ca_file: PathText | None = None
    """Certificate authority of the members; None means the system's store."""
    user: str | None = None
    """User of etcd, when authentication is on."""
    password: Secret | None = None
    """Password of that user."""


class Store(Section):
    """Where the event log and the write authority are kept."""

    kind: Literal["sqlite", "etcd"] = "sqlite"
    """``sqlite``: a file, on one machine. ``etcd``: across three sites, with a local copy of the log in a file."""
    path: PathText
    """File of the SQLite store, or of the local copy; a relative path starts at the file in which it stands."""
    etcd: EtcdCluster | None = None
    """The cluster, when the kind is etcd."""
