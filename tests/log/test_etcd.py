"""What etcd does to us: members lost, answers unclear, no way in, no space, somebody else's data. Real members."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from etcd_cluster import Cluster, free_ports

from hmsdr.decide.authority import Holder, grant
from hmsdr.errors import RefusedError
from hmsdr.lab.tls import write_certificates
from hmsdr.log.etcd import MOST_EVENTS, EtcdStore
from hmsdr.log.etcd_api import Etcd
from hmsdr.log.events import NewEvent
from hmsdr.log.store import HeadMovedError, StoreError

pytestmark = pytest.mark.timeout(120)


def event(number: int, size: int = 1) -> NewEvent:
    return NewEvent("test.happened", "run-1", "tester", {"number": number, "filling": "x" * size})


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, 3)
    try:
        cluster.until_ready()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, 1, "--quota-backend-bytes", "3000000")
    try:
        cluster.until_ready()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
async def store(one: Cluster) -> AsyncIterator[EtcdStore]:
    opened = await EtcdStore.open(one.etcd(deadline=1.0), create=True)
    yield opened
    await opened.close()


async def append_until_stored(store: EtcdStore, number: int, seconds: float = 20) -> float:
    """Append as a leader does: after an unclear answer, read what is there; gives how long it took."""
    began = time.monotonic()
    while True:
        try:
            events = await store.read()
            if any(item.data["number"] == number for item in events):
                return time.monotonic() - began
            await store.append([event(number)], expected=await store.head())
        except HeadMovedError:
            continue
        except StoreError:
            assert time.monotonic() < began + seconds, "it does not come back"
            await asyncio.sleep(0.05)


@pytest.mark.req("FA-4")
async def test_a_lost_member_costs_an_election_and_a_lost_majority_is_said(three: Cluster) -> None:
    store = await EtcdStore.open(three.etcd(deadline=1.0), create=True)
    try:
        for number in range(3):
            await append_until_stored(store, number)
            three.kill(number)
            await append_until_stored(store, 10 + number)
            three.start(number)
            await append_until_stored(store, 20 + number)
        events = await store.read()
        numbers = [item.data["number"] for item in events]
        assert sorted(numbers) == sorted(set(numbers)), "an unclear append was made twice"
        assert all(later.previous == earlier.hash for earlier, later in pairwise(events))
        three.kill(0)
        three.kill(1)
        began = time.monotonic()
        with pytest.raises(StoreError, match="majority of etcd's members"):
            await store.head()
        assert time.monotonic() - began < 5, "each member is asked once, with a deadline"
        three.start(0)
        assert await append_until_stored(store, 99) < 20
    finally:
        await store.close()


class Relay:
    """Hands on what is asked, and, when told so, keeps the answers to itself."""

    def __init__(self, target: str) -> None:
        self.port = int(target.rsplit(":", 1)[1])
        self.silent = False
        self.tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        self.tasks += [
            asyncio.create_task(self.copy(reader, back, answers=False)),
            asyncio.create_task(self.copy(there, writer, answers=True)),
        ]

    async def copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await source.read(65536):
            if not (answers and self.silent):
                sink.write(data)


@pytest.mark.req("FA-4")
async def test_an_answer_that_does_not_come_is_unclear_and_never_sent_again(one: Cluster) -> None:
    """What was asked for was done each time: whoever took the silence for a no would be wrong."""
    relay = Relay(one.clients[0])
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    way = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    store = await EtcdStore.open(Etcd((way,), deadline=0.5), create=True)
    try:
        vacant, head = await store.read_authority(), await store.head()
        held = grant(vacant, Holder("east", "1"))
        relay.silent = True
        with pytest.raises(StoreError, match="not known to be done"):
            await store.swap_authority(vacant, held)
        with pytest.raises(StoreError, match="not known to be done"):
            await store.append([event(1)], expected=head)
        with pytest.raises(StoreError, match="no answer in time"):
            await store.read_authority()
        relay.silent = False
        assert await store.read_authority() == held
        assert [item.data["number"] for item in await store.read()] == [1]
        with pytest.raises(HeadMovedError):
            await store.append([event(1)], expected=head)
        assert not await store.swap_authority(vacant, held)
    finally:
        await store.close()
        server.close()
        for task in relay.tasks:
            task.cancel()


@pytest.mark.req("FA-4")
async def test_behind_a_cut_every_member_is_asked_until_one_answers(one: Cluster) -> None:
    """Cut off from two of three: silence, not a refusal, and the last one on the list must have its turn."""
    silent = [await asyncio.start_server(_says_nothing, "127.0.0.1", 0) for _ in range(2)]
    ways = [f"http://127.0.0.1:{each.sockets[0].getsockname()[1]}" for each in silent]
    await (await EtcdStore.open(one.etcd(), create=True)).close()
    for members in ((*ways, one.clients[0]), (ways[0], one.clients[0], ways[1])):
        store = await EtcdStore.open(Etcd(members, deadline=0.3))
        try:
            assert (await store.head()).seq == 0
        finally:
            await store.close()
    for each in silent:
        each.close()


async def _says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


@pytest.mark.req("FA-4")
async def test_a_member_that_is_paused_leaves_every_write_whole_or_absent(
    one: Cluster, store: EtcdStore
) -> None:
    vacant, head = await store.read_authority(), await store.head()
    held = grant(vacant, Holder("east", "1"))
    one.signal(0, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="not known to be done"):
            await store.swap_authority(vacant, held)
        with pytest.raises(StoreError, match="not known to be done"):
            await store.append([event(1), event(2)], expected=head)
    finally:
        one.signal(0, signal.SIGCONT)
    await append_until_stored(store, 3)
    assert await store.read_authority() in (vacant, held)
    assert [item.data["number"] for item in await store.read()] in ([3], [1, 2, 3])


async def test_a_full_etcd_is_said_and_still_read(store: EtcdStore) -> None:
    head = await store.head()
    with pytest.raises(StoreError, match=r"not known to be done.*etcd is full: compact"):
        for number in range(200):
            head = (await store.append([event(number, 100_000)], expected=head)).head
    # The one that reaches the quota is done and answered with an error all the same.
    found = await store.head()
    assert found.seq in (head.seq, head.seq + 1)
    events = await store.read()
    assert len(events) == found.seq
    assert events[-1].hash == found.hash


async def test_a_store_that_is_none_or_of_another_version_or_no_etcd_at_all(
    one: Cluster, store: EtcdStore
) -> None:
    with pytest.raises(RefusedError, match="there is nothing"):
        await EtcdStore.open(one.etcd(), "/elsewhere")
    put(one.clients[0], "/hmsdr/format", "99")
    with pytest.raises(RefusedError, match="format 99"):
        await EtcdStore.open(one.etcd())
    put(one.clients[0], "/hmsdr/authority", '{"phase": "held", "from": "the future"}')
    with pytest.raises(StoreError, match="fields of another version: from"):
        await store.read_authority()
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(StoreError, match="majority of etcd's members"):
        await EtcdStore.open(Etcd((nobody,)))
    with pytest.raises(StoreError, match="no JSON: is this etcd"):
        await EtcdStore.open(Etcd((f"{one.clients[0]}/metrics#",)))


async def test_what_an_older_version_wrote_is_still_swapped(one: Cluster, store: EtcdStore) -> None:
    """A field that did not exist then: the text differs from what we would write, the record does not."""
    vacant = await store.read_authority()
    raw = {"epoch": 0, "phase": "vacant", "holder": None, "lease_seconds": 30.0}
    put(one.clients[0], "/hmsdr/authority", json.dumps(raw))
    assert await store.read_authority() == vacant
    assert await store.swap_authority(vacant, grant(vacant, Holder("east", "1")))
    assert (await store.read_authority()).epoch == 1
    assert not await store.swap_authority(vacant, replace(vacant, lease_seconds=5))


async def test_more_than_one_transaction_can_hold_is_refused_before_it_is_sent(store: EtcdStore) -> None:
    head = await store.head()
    with pytest.raises(StoreError, match="at most"):
        await store.append([event(number) for number in range(MOST_EVENTS + 1)], expected=head)
    await store.append([event(number) for number in range(MOST_EVENTS)], expected=head)


async def test_tls_and_authentication(tmp_path: Path) -> None:
    write_certificates(tmp_path, ["localhost"], ["127.0.0.1"])
    cluster = Cluster(tmp_path, 1, tls=(tmp_path / "ingress.pem", tmp_path / "ingress.key"))
    allowed = cluster.etcd(deadline=5.0, ca=tmp_path / "ca.pem", user="hmsdr", password="a secret")
    try:
        await eventually(lambda: EtcdStore.open(replace(allowed, user=None, password=None), create=True))
        await set_up_authentication(replace(allowed, user=None, password=None))
        store = await EtcdStore.open(allowed)
        await store.append([event(1)], expected=await store.head())
        cluster.kill(0)  # simple tokens do not outlive a member: it logs in again by itself
        cluster.start(0)
        await append_until_stored(store, 2)
        await store.close()
        with pytest.raises(StoreError, match="does not let hmsdr in") as wrong:
            await EtcdStore.open(replace(allowed, password="a guess"))
        assert "a guess" not in str(wrong.value)
        with pytest.raises(StoreError, match="user"):
            await EtcdStore.open(replace(allowed, user=None))
        with pytest.raises(StoreError, match="certificate"):
            await EtcdStore.open(replace(allowed, ca=None))
        with pytest.raises(RefusedError, match="no certificate can be read"):
            await EtcdStore.open(replace(allowed, ca=tmp_path / "none.pem"))
    finally:
        cluster.end()


async def set_up_authentication(etcd: Etcd) -> None:
    from hmsdr.log.etcd_api import EtcdApi, encode

    api = EtcdApi(etcd)
    try:
        for path, body in (
            ("/v3/auth/user/add", {"name": "root", "password": "root"}),
            ("/v3/auth/user/grant", {"user": "root", "role": "root"}),
            ("/v3/auth/role/add", {"name": "hospital"}),
            (
                "/v3/auth/role/grant",
                {
                    "name": "hospital",
                    "perm": {
                        "permType": "READWRITE",
                        "key": encode("/hmsdr/"),
                        "range_end": encode("/hmsdr0"),
                    },
                },
            ),
            ("/v3/auth/user/add", {"name": "hmsdr", "password": "a secret"}),
            ("/v3/auth/user/grant", {"user": "hmsdr", "role": "hospital"}),
            ("/v3/auth/enable", {}),
        ):
            status, answer = await api._post(etcd.endpoints[0], path, body)
            assert status == 200, answer
    finally:
        await api.close()


async def eventually(act: Any, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while True:
        try:
            opened = await act()
        except StoreError:
            assert time.monotonic() < ends
            await asyncio.sleep(0.2)
        else:
            await opened.close()
            return


def put(endpoint: str, key: str, value: str) -> None:
    from hmsdr.log.etcd_api import encode

    body = json.dumps({"key": encode(key), "value": encode(value)}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/v3/kv/put", body), timeout=5) as answer:
        answer.read()
