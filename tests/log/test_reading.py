"""A log that is only read: everything is there, also what is not in its file yet, and every write is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from hmsdr.log.events import NewEvent
from hmsdr.log.reading import _copied, connect_reading
from hmsdr.log.sqlite import SqliteStore


@pytest.mark.req("FM-3")
@pytest.mark.parametrize("way", [connect_reading, _copied])
async def test_what_was_committed_is_read_and_nothing_can_be_written(tmp_path: Path, way: object) -> None:
    store = await SqliteStore.open(tmp_path / "store.db", create=True, lease_seconds=4)
    try:
        head = await store.begin_term("tester")
        await store.append([NewEvent("run.started", "run-1", "pat", {})], expected=head)
        connection = way(tmp_path / "store.db")  # type: ignore[operator]
        try:
            assert connection.execute("SELECT subject FROM event").fetchall() == [("run-1",)]
            with pytest.raises(sqlite3.OperationalError):
                connection.execute("UPDATE term SET number = 9")
        finally:
            connection.close()
    finally:
        await store.close()
