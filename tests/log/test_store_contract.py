"""One contract for every store: the log's head and the authority are changed by compare-and-swap only."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from hmsdr.decide.authority import Holder, grant, renew, revoke
from hmsdr.errors import RefusedError
from hmsdr.log.events import GENESIS, NewEvent, chain_hash
from hmsdr.log.sqlite import SqliteStore
from hmsdr.log.store import HeadMovedError, StoreError, TermOverError


@pytest.fixture
async def store(tmp_path: Path):
    opened = await SqliteStore.open(tmp_path / "hmsdr.db", create=True, lease_seconds=4)
    yield opened
    await opened.close()


def event(number: int) -> NewEvent:
    return NewEvent(
        kind="test.happened", subject=f"run-{number % 2}", actor="tester", data={"number": number}
    )


async def test_events_come_back_in_order_and_chained(store: SqliteStore) -> None:
    head = await store.append([event(1), event(2)], expected=await store.head())
    head = await store.append([event(3)], expected=head)
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


async def test_an_append_after_somebody_elses_is_refused_and_writes_nothing(store: SqliteStore) -> None:
    old = await store.head()
    await store.append([event(1)], expected=old)
    with pytest.raises(HeadMovedError, match="already ends at 1"):
        await store.append([event(2)], expected=old)
    assert len(await store.read()) == 1


async def test_an_append_under_an_older_term_is_refused(store: SqliteStore) -> None:
    mine = await store.begin_term("first")
    theirs = await store.begin_term("second")
    with pytest.raises(TermOverError):
        await store.append([event(1)], expected=mine)
    await store.append([event(1)], expected=theirs)
    assert [item.term for item in await store.read()] == [theirs.term]


async def test_the_authority_is_swapped_only_from_the_expected_value(store: SqliteStore) -> None:
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


async def test_processes_appending_at_once_never_fork_the_chain(store: SqliteStore) -> None:
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


async def test_a_cancelled_append_is_whole_or_absent(store: SqliteStore) -> None:
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
    with pytest.raises(StoreError, match="not a database"):
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
