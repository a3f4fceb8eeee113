"""One contract for every store: the log's head and the authority are changed by compare-and-swap only."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from etcd_cluster import Cluster

from hmsdr.decide.authority import Holder, grant, renew, revoke
from hmsdr.decide.leadership import Leadership, beaten, resigned, taken
from hmsdr.errors import RefusedError
from hmsdr.log.etcd import EtcdStore
from hmsdr.log.events import GENESIS, NewEvent, chain_hash
from hmsdr.log.sqlite import SqliteStore
from hmsdr.log.store import HeadMovedError, TermOverError


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("etcd"), 1)
    try:
        made.until_ready()
        yield made
    finally:
        made.end()


Store = SqliteStore | EtcdStore


@pytest.fixture(params=["sqlite", "etcd"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store
    if request.param == "sqlite":
        opened = await SqliteStore.open(tmp_path / "hmsdr.db", create=True, lease_seconds=4)
    else:
        where = request.getfixturevalue("cluster").etcd()
        opened = await EtcdStore.open(where, f"/{uuid.uuid4().hex}", create=True, lease_seconds=4)
    yield opened
    await opened.close()


def event(number: int) -> NewEvent:
    return NewEvent(
        kind="test.happened", subject=f"run-{number % 2}", actor="tester", data={"number": number}
    )


async def test_events_come_back_in_order_and_chained(store: Store) -> None:
    head = (await store.append([event(1), event(2)], expected=await store.head())).head
    appended = await store.append([event(3)], expected=head)
    head = appended.head
    assert list(appended.events) == await store.read(2), "an append gives what a read would"
    events = await store.read()
    assert [item.data["number"] for item in events] == [1, 2, 3]
    previous = GENESIS
    for item in events:
        assert item.previous == previous
        new = NewEvent(item.kind, item.subject, item.actor, item.data)
        assert item.hash == chain_hash(
            previous, item.seq, item.at.isoformat(timespec="microseconds"), item.term, new
        )
        previous = item.hash
    assert head.hash == previous
    assert [item.seq for item in await store.read(1)] == [2, 3]
    assert [item.seq for item in await store.read(subject="run-1")] == [1, 3]


async def test_an_append_after_somebody_elses_is_refused_and_writes_nothing(store: Store) -> None:
    old = await store.head()
    await store.append([event(1)], expected=old)
    with pytest.raises(HeadMovedError, match="already ends at 1"):
        await store.append([event(2)], expected=old)
    assert len(await store.read()) == 1


async def test_an_append_under_an_older_term_is_refused(store: Store) -> None:
    mine = await store.begin_term("first")
    theirs = await store.begin_term("second")
    with pytest.raises(TermOverError):
        await store.append([event(1)], expected=mine)
    await store.append([event(1)], expected=theirs)
    assert [item.term for item in await store.read()] == [theirs.term]


async def test_the_authority_is_swapped_only_from_the_expected_value(store: Store) -> None:
    vacant = await store.read_authority()
    east, west = Holder("east", "1"), Holder("west", "1")
    held = grant(vacant, east)
    assert await store.swap_authority(vacant, held)
    assert not await store.swap_authority(vacant, grant(vacant, west))
    assert await store.read_authority() == held
    revoked = revoke(held, 1)
    assert await store.swap_authority(held, revoked)
    # The renewal was made before the revocation and arrives after it: it must fail.
    assert not await store.swap_authority(held, renew(held, east))


def _append_many(path: str, count: int, results: multiprocessing.Queue[int]) -> None:
    async def work() -> int:
        store = await SqliteStore.open(Path(path))
        done = 0
        while done < count:
            try:
                await store.append([event(done)], expected=await store.head())
                done += 1
            except HeadMovedError:
                continue
        await store.close()
        return done

    results.put(asyncio.run(work()))


async def test_processes_appending_at_once_never_fork_the_chain(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "hmsdr.db", create=True)
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = context.Queue()
    workers = [context.Process(target=_append_many, args=(str(store.path), 25, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        await asyncio.to_thread(worker.join, 120)
    assert sum(results.get(timeout=5) for _ in workers) == 75
    events = await store.read()
    assert [item.seq for item in events] == list(range(1, 76))
    assert all(later.previous == earlier.hash for earlier, later in pairwise(events))
    await store.close()


async def test_writers_at_once_never_fork_the_chain_and_one_of_them_always_gets_on(store: Store) -> None:
    async def work() -> None:
        for number in range(8):
            while True:
                try:
                    await store.append([event(number), event(number)], expected=await store.head())
                    break
                except HeadMovedError:
                    continue

    await asyncio.wait_for(asyncio.gather(*(work() for _ in range(4))), 60)
    events = await store.read()
    assert [item.seq for item in events] == list(range(1, 65))
    assert all(later.previous == earlier.hash for earlier, later in pairwise(events))


async def test_terms_begun_at_once_are_different(store: Store) -> None:
    terms = await asyncio.gather(*(store.begin_term(f"c{number}") for number in range(5)))
    assert sorted(head.term for head in terms) == [1, 2, 3, 4, 5]
    last = max(terms, key=lambda head: head.term)
    for head in terms:
        if head is not last:
            with pytest.raises(TermOverError):
                await store.append([event(1)], expected=head)
    await store.append([event(1)], expected=last)


async def test_swaps_at_once_have_one_winner(store: Store) -> None:
    vacant = await store.read_authority()
    won = await asyncio.gather(
        *(store.swap_authority(vacant, grant(vacant, Holder(f"h{number}", "1"))) for number in range(8))
    )
    assert won.count(True) == 1
    assert (await store.read_authority()).holder == Holder(f"h{won.index(True)}", "1")


async def test_what_a_leader_paused_meanwhile_wanted_is_refused(store: Store) -> None:
    """SAFETY rule 11: the new leader has folded, and nothing appears behind its back."""
    old = await store.begin_term("old")
    new = await store.begin_term("new")
    folded = await store.read()
    with pytest.raises(TermOverError):
        await store.append([event(1)], expected=old)
    with pytest.raises(TermOverError):
        await store.append([event(1)], expected=replace(old, seq=new.seq, hash=new.hash))
    assert await store.read() == folded


async def test_many_events_are_read_page_by_page(store: Store) -> None:
    head = await store.head()
    for _ in range(6):
        head = (await store.append([event(number) for number in range(100)], expected=head)).head
    assert [item.seq for item in await store.read()] == list(range(1, 601))
    assert [item.seq for item in await store.read(595)] == [596, 597, 598, 599, 600]


async def test_a_cancelled_append_is_whole_or_absent(store: Store) -> None:
    for _ in range(20):
        task = asyncio.create_task(store.append([event(1), event(2)], expected=await store.head()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    # Whatever was cancelled, later reads come after it in the store's own thread.
    assert len(await store.read()) % 2 == 0


async def test_a_missing_store_and_another_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no such file"):
        await SqliteStore.open(tmp_path / "none.db")
    store = await SqliteStore.open(tmp_path / "old.db", create=True)
    await store.close()
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.execute("UPDATE meta SET format = 99")
    with pytest.raises(RefusedError, match="format 99"):
        await SqliteStore.open(tmp_path / "old.db")


async def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_bytes(os.urandom(4096))
    with pytest.raises(RefusedError, match="not a database"):
        await SqliteStore.open(tmp_path / "junk.db")


async def test_creating_twice_keeps_what_is_there(tmp_path: Path) -> None:
    first = await SqliteStore.open(tmp_path / "hmsdr.db", create=True, lease_seconds=7)
    vacant = await first.read_authority()
    await first.swap_authority(vacant, replace(vacant, epoch=3))
    await first.close()
    second = await SqliteStore.open(tmp_path / "hmsdr.db", create=True, lease_seconds=9)
    assert (await second.read_authority()).epoch == 3
    assert (await second.read_authority()).lease_seconds == 7
    await second.close()


async def test_whoever_takes_the_lead_ends_the_term_of_whoever_led(store: Store) -> None:
    nobody = await store.leadership()
    assert nobody == Leadership()
    first = taken(nobody, "east")
    assert await store.settle(nobody, first)
    mine = await store.head()
    assert mine.term == 1
    assert await store.settle(first, beaten(first))
    assert not await store.settle(first, taken(first, "west")), "it has beaten since"
    second = taken(beaten(first), "west")
    assert await store.settle(beaten(first), second)
    with pytest.raises(TermOverError):
        await store.append([event(1)], expected=mine)
    assert not await store.settle(beaten(first), beaten(beaten(first))), "its beat is refused as well"
    assert await store.settle(second, resigned(second))
    assert await store.leadership() == Leadership(2, "", 0)
    assert (await store.begin_term("a runner")).term == 3
    assert (await store.leadership()).leader == "a runner"


async def test_the_council_keeps_each_sites_last_word(store: Store) -> None:
    await store.meet("east", {"number": 1})
    await store.meet("west", {"number": 1, "of": ["ä"]})
    await store.append([event(1)], expected=await store.head())
    sitting = await store.meet("east", {"number": 2})
    assert sitting.words == {"east": {"number": 1}, "west": {"number": 1, "of": ["ä"]}}
    assert (await store.meet("west", {})).words["east"] == {"number": 2}
    assert sitting.head == await store.head()
    assert sitting.authority == await store.read_authority()
    assert sitting.leadership == await store.leadership()


async def test_a_copy_follows_word_for_word_or_not_at_all(store: Store, tmp_path: Path) -> None:
    head = await store.begin_term("leader")
    await store.append([event(1), event(2)], expected=head)
    copy = await SqliteStore.open(tmp_path / "copy.db", create=True, lease_seconds=4)
    held = grant(await store.read_authority(), Holder("east", "1"))
    await copy.copy(await store.read(), await store.leadership(), held)
    assert await copy.read() == await store.read()
    assert (await copy.head(), await copy.read_authority()) == (await store.head(), held)
    await store.append([event(3)], expected=await store.head())
    await store.append([event(4)], expected=await store.head())
    with pytest.raises(RefusedError, match="event 4 does not follow event 2"):
        await copy.copy(await store.read(3), await store.leadership(), held)
    # Once more from the start, as who does not know that the copy was made: what is there stays.
    for after in (0, 2, 1):
        await copy.copy(await store.read(after), await store.leadership(), held)
        assert await copy.read() == await store.read()
    other = await SqliteStore.open(tmp_path / "other.db", create=True, lease_seconds=4)
    await other.append([event(1)], expected=await other.begin_term("leader"))
    with pytest.raises(RefusedError, match="copy of another log"):
        await copy.copy(await other.read(), await store.leadership(), held)
    await other.close()
    await copy.close()
