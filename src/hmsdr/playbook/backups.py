"""What is kept of the hospital, how often, for how long, and under which keys. Frozen data only.

Where a region's backups lie stands with the region (`regions.NAME.backups`); this is what holds for both.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, get_args

from pydantic import Field

from hmsdr.playbook.base import Duration, MayBeBlank, Secret, Section

AgeRecipient = Annotated[str, Field(pattern=r"^age1[02-9ac-hj-np-z]{58}$")]
Kind = Literal[
    "namespaces",
    "resourcequotas",
    "limitranges",
    "serviceaccounts",
    "roles",
    "rolebindings",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services",
    "deployments",
    "statefulsets",
    "daemonsets",
    "cronjobs",
    "horizontalpodautoscalers",
    "poddisruptionbudgets",
    "networkpolicies",
    "ingresses",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Every kind that can be kept, in the order in which they are restored: what others refer to comes first."""


class KubernetesBackups(Section):
    """Backups of what runs in a region's cluster."""

    prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9!_.*'()-]+/)*$"), MayBeBlank()] = "kubernetes/"
    """Key prefix of these backups in the region's bucket."""
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = (
        "namespaces",
        "secrets",
        "configmaps",
        "services",
        "deployments",
        "statefulsets",
        "ingresses",
    )
    """Kinds of objects that are kept, and the only ones that a restore accepts."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that are kept, and the only ones that a restore accepts; empty means the hospital's own."""
    recipients: tuple[AgeRecipient, ...] = ()
    """Public keys (age) for which secrets are encrypted; none of them is needed to restore anything else."""
    identity: Secret | None = None
    """Private key (age) with which secrets are read back: only where something is restored."""


class BackupPolicy(Section):
    """What holds for the backups of both regions."""

    archive_wal: bool = True
    """Every region's server archives its WAL into its region's bucket, the standby too: so both buckets have it."""
    server: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] = "hms"
    """The database's name below the buckets' prefix; the same in both regions, since it is one database."""
    every: Duration = timedelta(hours=24)
    """From one base backup to the next."""
    verify_every: Duration = timedelta(hours=24)
    """From one restore that was tried out to the next."""
    keep: Duration = timedelta(days=30)
    """How far back a point in time can be restored."""
    keep_at_least: Annotated[int, Field(ge=1, le=10_000)] = 2
    """So many base backups are kept, however old they are."""
    wal_every: Duration = timedelta(minutes=1)
    """At most this much of what was written is not archived yet: the RPO of a restore."""
    wal_late: Duration = timedelta(minutes=10)
    """An archive that is further behind stands still, as far as anybody can tell."""
    wal_queue: Annotated[int, Field(ge=1 << 26, le=1 << 50)] = 1 << 33
    """Bytes of WAL that may wait for an object store that is away; beyond it files are given up, with a gap, before the disk is full."""
    restore_within: Duration = timedelta(hours=4)
    """A restore that would take longer is a finding."""
    compression: Literal["gzip", "none"] = "gzip"
    """How base backups are compressed; WAL always is."""
    kms_key: str | None = None
    """KMS key for the objects of the database; unset means the bucket's own encryption."""
    kubernetes: KubernetesBackups = KubernetesBackups()
    """Backups of the clusters' objects."""
