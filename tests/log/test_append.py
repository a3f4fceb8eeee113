"""Appending beside a runner: facts of people arrive at the end, whoever else writes and whatever term it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hmsdr.errors import RefusedError
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.log.store import HeadMovedError


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "store.db", create=True, lease_seconds=4)
    yield opened
    await opened.close()


def event(kind: str) -> NewEvent:
    return NewEvent(kind, "subject", "tester", {})


async def kinds(store: SqliteStore) -> list[str]:
    return [item.kind for item in await store.read()]


async def test_who_was_overtaken_asks_again_and_comes_after(store: SqliteStore) -> None:
    asked = 0

    async def answer() -> list[NewEvent]:
        nonlocal asked
        asked += 1
        if asked < 4:
            await store.append([event(f"other.{asked}")], expected=await store.head())
        return [event("mine.a"), event("mine.b")]

    await append_after(store, answer, doing="testing")
    assert await kinds(store) == ["other.1", "other.2", "other.3", "mine.a", "mine.b"]


async def test_what_became_forbidden_meanwhile_is_not_appended(store: SqliteStore) -> None:
    async def answer() -> list[NewEvent]:
        if "run.succeeded" in await kinds(store):
            raise RefusedError("testing", "the run has ended", "")
        await store.append([event("run.succeeded")], expected=await store.head())
        return [event("approval.given")]

    with pytest.raises(RefusedError, match="has ended"):
        await append_after(store, answer, doing="testing")
    assert await kinds(store) == ["run.succeeded"]


async def test_a_runner_that_takes_over_meanwhile_is_no_reason_to_fail(store: SqliteStore) -> None:
    begun = 0

    async def answer() -> list[NewEvent]:
        nonlocal begun
        if begun < 2:
            begun += 1
            await store.begin_term(f"runner {begun}")
        return [event("approval.given")]

    await append_after(store, answer, doing="testing")
    (only,) = await store.read()
    assert (only.kind, only.term) == ("approval.given", (await store.head()).term)


async def test_it_gives_up_with_words_when_others_never_rest(store: SqliteStore) -> None:
    async def answer() -> list[NewEvent]:
        await store.append([event("other")], expected=await store.head())
        return [event("mine")]

    with pytest.raises(HeadMovedError, match="approving: others appended first"):
        await append_after(store, answer, doing="approving")
    assert "mine" not in await kinds(store)


async def test_many_at_once_all_arrive_once(store: SqliteStore) -> None:
    async def one(number: int) -> None:
        async def answer() -> list[NewEvent]:
            return [event(f"mine.{number}")]

        await append_after(store, answer, doing="testing")

    await asyncio.gather(*(one(number) for number in range(8)))
    assert sorted(await kinds(store)) == [f"mine.{number}" for number in range(8)]
