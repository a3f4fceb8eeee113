"""An etcd without space, under a real controller: the site itself tells people, since nothing can be written into the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from etcd_cluster import Cluster

from hmsdr.control.controller import Controller
from hmsdr.errors import HmsdrError
from hmsdr.log.etcd import EtcdStore
from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.log.store import StoreError, StoreFullError
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from receiver import Receiver

SITE = "us-east-2"


@pytest.fixture
async def slack() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


def playbook(tmp_path: Path, cluster: Cluster, slack: Receiver) -> Playbook:
    (tmp_path / "hook").write_text(slack.url)
    overlay = {
        "extends": "hms",
        "database": {"lease": "4s"},
        "thresholds": {"probing": {"interval": "200ms", "timeout": "200ms"}},
        "channels": {"endpoints": {"slack": "${file:hook}"}},
        "store": {
            "kind": "etcd",
            "path": "copy.db",
            "etcd": {"endpoints": {SITE: cluster.clients[0]}},
        },
        "regions": {
            name: {
                "postgres": {"host": "127.0.0.1", "port": 1, "password": None},
                "agent": {"url": "http://127.0.0.1:1", "key": "${file:hook}"},
                "ingress": {"url": "http://127.0.0.1:1"},
            }
            for name in ("us-east-1", "us-west-2")
        },
    }
    (tmp_path / "playbook.yaml").write_text(yaml.safe_dump(overlay))
    return load(tmp_path / "playbook.yaml")


async def fill(store: EtcdStore) -> None:
    with pytest.raises(StoreFullError, match="etcd is full"):
        for number in range(400):
            try:
                await store.append(
                    [NewEvent("test", "test", "tester", {"number": number, "text": "x" * 100_000})],
                    expected=await store.head(),
                )
            except StoreFullError:
                raise
            except StoreError:
                continue  # the controller's own events move the head


@pytest.mark.req("CM-1")
async def test_a_site_tells_that_the_store_is_full(tmp_path: Path, slack: Receiver) -> None:
    cluster = Cluster(tmp_path, 1, "--quota-backend-bytes", "3000000")
    store = other = copy = own = None
    try:
        cluster.until_ready()
        store = await EtcdStore.open(cluster.etcd(deadline=1.0), create=True)
        other = await EtcdStore.open(cluster.etcd(deadline=1.0))
        copy = await SqliteStore.open(tmp_path / "copy.db", create=True, lease_seconds=4)
        own = await SqliteStore.open(tmp_path / "alerts.db", create=True, lease_seconds=4)
        stop = asyncio.Event()
        controller = Controller(playbook(tmp_path, cluster, slack), SITE, store, copy, own)
        work = asyncio.create_task(controller.run(stop))
        await fill(other)
        ends = time.monotonic() + 30
        while not slack.texts("etcd has no space left") and time.monotonic() < ends:
            await asyncio.sleep(0.1)
        stop.set()
        try:
            await asyncio.wait_for(work, 20)
        except HmsdrError as error:
            print(f"it ended: {error}")  # noqa: T201 - who leads ends when it cannot write
        assert len(slack.texts("etcd has no space left")) == 1, slack.messages
        assert [event.subject for event in await own.read()][:2] == [f"store-full/{SITE}"] * 2
    finally:
        for each in (own, copy, other, store):
            if each is not None:
                await each.close()
        cluster.end()
