"""Opening the store that a playbook names, whatever its kind. Opens; reads and writes nothing."""

from __future__ import annotations

from pathlib import Path

from hmsdr.errors import RefusedError
from hmsdr.log.sqlite import SqliteStore
from hmsdr.log.store import Store
from hmsdr.playbook.model import Playbook


async def open_store(
    playbook: Playbook,
    *,
    site: str | None = None,
    create: bool = False,
    patient: bool = False,
    reading: bool = False,
) -> Store:
    """Open the store.

    Args:
        playbook: the hospital's.
        site: where we are: the etcd member there is asked first.
        create: make it, with a vacant write authority, when it is not there yet.
        patient: a cluster that does not answer now is looked at when it does: for who must be there without it too.
        reading: nothing will be written: a file on a disk that takes nothing is opened all the same.

    Raises:
        RefusedError: no store there, written by another version, or not described in full.
        StoreError: it does not answer, or does not let us in.
    """
    lease = playbook.database.lease.total_seconds()
    if playbook.store.kind == "sqlite":
        path = Path(playbook.store.path)
        return await SqliteStore.open(path, create=create, lease_seconds=lease, reading=reading)
    from hmsdr.log.etcd import EtcdStore  # noqa: PLC0415 - its HTTP client is not needed for a file
    from hmsdr.log.etcd_api import Etcd  # noqa: PLC0415

    cluster = playbook.store.etcd
    if cluster is None:
        raise RefusedError(
            "opening the store", "its kind is etcd, and no etcd is described", "Say where, under `store.etcd`"
        )
    ordered = sorted(cluster.endpoints.items(), key=lambda item: item[0] != site)
    etcd = Etcd(
        tuple(url for _, url in ordered),
        cluster.deadline.total_seconds(),
        None if cluster.ca_file is None else Path(cluster.ca_file),
        cluster.user,
        None if cluster.password is None else cluster.password.get_secret_value(),
    )
    return await EtcdStore.open(etcd, cluster.prefix, create=create, lease_seconds=lease, patient=patient)
