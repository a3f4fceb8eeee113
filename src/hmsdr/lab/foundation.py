"""What a new lab stands on: files, databases, the store with the first grant, records, buckets, a first backup.

Each function takes the layout, is called once while the lab comes up, and blocks; none starts a server that stays.
"""

from __future__ import annotations

import asyncio

from hmsdr.control import bootstrap, programs
from hmsdr.control.server import PostgresServer
from hmsdr.control.unprivileged import choose
from hmsdr.lab import wires
from hmsdr.lab.layout import CLUSTER_DOMAIN, DATABASE, ZONE, Layout
from hmsdr.lab.overlay import write_playbook
from hmsdr.lab.tls import write_certificates
from hmsdr.log.opening import open_store
from hmsdr.playbook.load import load


def write_files(layout: Layout) -> None:
    """Certificates, secrets, playbook, kubeconfig, Prometheus's configuration."""
    from hmsdr.lab.hms import monitoring  # noqa: PLC0415 - imported while servers already start
    from hmsdr.lab.kube import kubeconfig  # noqa: PLC0415

    tls = layout.ca_file.parent
    tls.mkdir(parents=True, exist_ok=True)
    hosts = sorted(
        {region.ingress_https.host for region in layout.regions.values()} | {layout.prometheus.host}
    )
    write_certificates(tls, [ZONE, f"*.{ZONE}", f"*.{CLUSTER_DOMAIN}"], hosts)
    write_playbook(layout)
    kubeconfig.write(layout)
    monitoring.write_config(layout)


def make_databases(layout: Layout) -> None:
    """The primary's database with the hospital's tables, and the standby as a copy of it.

    Raises:
        FailedError: a program of PostgreSQL failed.
    """
    from hmsdr.lab.hms import schema  # noqa: PLC0415

    home, other = layout.regions.values()
    unprivileged = choose(layout.user)
    bootstrap.initialise(
        home.postgres_data,
        programs.postgres_bin(),
        unprivileged,
        database=DATABASE,
        schema=schema.create,
        hba=bootstrap.HBA + (wires.database_rules() if layout.namespaces else ""),
        sync=False,
    )
    bootstrap.clone(home.postgres_data, other.postgres_data, unprivileged)


async def make_store(layout: Layout) -> None:
    """The event log and the write authority, epoch 1 of which is granted to the home region's database."""
    playbook = load(layout.playbook)
    store = await open_store(playbook, create=True)
    try:
        vacant = await store.read_authority()
        instance = playbook.regions[playbook.home_region].postgres.instance
        await store.swap_authority(vacant, bootstrap.first_grant(vacant, instance))
    finally:
        await store.close()


def seed_aws(layout: Layout) -> None:
    """The hosted zone with its records, and the buckets."""
    from hmsdr.lab.aws.seed import seed  # noqa: PLC0415

    asyncio.run(seed(layout))


def first_backup(layout: Layout) -> None:
    """A base backup of the home region's server in its bucket, and the copy in the other's: as `hmsdr backup run` makes it.

    Raises:
        HmsdrError: it was not made.
    """
    from hmsdr.backup.make import Maker  # noqa: PLC0415 - imported while servers already start
    from hmsdr.drivers.s3 import ObjectStore  # noqa: PLC0415

    playbook = load(layout.playbook)
    home = next(iter(layout.regions.values()))

    async def make() -> None:
        objects = ObjectStore(playbook.aws)
        server = PostgresServer(
            home.postgres_data, programs.postgres_bin(), choose(layout.user), home.logs / "backup.log"
        )
        try:
            await Maker(playbook, home.name, objects, server, lambda _: None).run()
        finally:
            await objects.close()

    asyncio.run(make())
