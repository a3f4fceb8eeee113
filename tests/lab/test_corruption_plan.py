"""Damaged data in a whole lab: wrong rows have a way back that is really there, a bad page on one copy is none for a restore."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pages import change, garbage

from hmsdr.lab.layout import DATABASE, REGIONS, Layout
from hmsdr.lab.shell import variables

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
EAST, WEST = REGIONS


def ran(lab: Layout, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        env={**os.environ, **variables(lab)},
        cwd=lab.directory,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def mapped(lab: Layout, *words: str) -> tuple[int, dict[str, Any], str]:
    done = ran(lab, "hmsdr", "plan", "corruption", EAST, "--json", *words)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


async def mapped_until(lab: Layout, what: str, answer: str, *words: str) -> dict[str, Any]:
    ends, said = time.monotonic() + 90, ""
    found: dict[str, Any] = {}
    while time.monotonic() < ends:
        _, found, said = await asyncio.to_thread(mapped, lab, *words)
        if found.get("answer") == answer and (answer != "restore" or found["point"] is not None):
            return found
        await asyncio.sleep(0.5)
    raise AssertionError(f"not within 90 s: {what}; {found} {said}")


async def test_wrong_rows_have_a_way_back_and_a_bad_page_on_one_copy_is_answered_by_the_other(
    fresh_lab: Layout, tmp_path: Path
) -> None:
    lab, here = fresh_lab, fresh_lab.regions[EAST].postgres
    conninfo = f"host={here.host} port={here.port} user=postgres dbname={DATABASE}"
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        await connection.execute("CREATE EXTENSION pg_buffercache")
        await connection.execute(
            "CREATE TABLE notes AS SELECT g, repeat('x', 100) AS text FROM generate_series(1, 2000) AS g"
        )
        rows = await (await connection.execute("SELECT clock_timestamp()")).fetchone()
        assert rows is not None
        moment = rows[0].isoformat()
        await asyncio.sleep(0.1)
        await connection.execute("UPDATE notes SET text = 'wrong'")
        await connection.execute("SELECT pg_switch_wal()")

        found = await mapped_until(lab, "a way back", "restore", "--before", moment)
        assert {each["condition"] for each in found["copies"]} == {"damaged"}
        assert found["point"]["cost"]["commits"] >= 1
        assert found["point"]["free"] > found["point"]["room"]
        tried, restored = (shlex.split(line) for line in found["commands"])
        done = await asyncio.to_thread(ran, lab, *tried, "--scratch", str(tmp_path / "scratch"), "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        done = await asyncio.to_thread(ran, lab, *restored)
        assert done.returncode == 0, done.stdout + done.stderr
        into = Path(restored[-1])
        assert (into / "standby.signal").exists(), "nobody starts it writable by accident"
        status = await (
            await connection.execute("SELECT count(*) FROM notes WHERE text = 'wrong'")
        ).fetchone()
        assert status == (2000,), "the running system was left alone"

        code, _, said = await asyncio.to_thread(mapped, lab, "--before", "2020-01-01T00:00:00Z")
        assert code == 2, "no backup is so old"
        assert "backup" in said

        await connection.execute("CHECKPOINT")
        rows = await (await connection.execute("SELECT pg_relation_filepath('notes')")).fetchone()
        assert rows is not None
        change(lab.regions[EAST].postgres_data / str(rows[0]), 3, garbage, honest=False)
        await connection.execute("SELECT pg_buffercache_evict_relation('notes')")
        with pytest.raises(psycopg.Error, match="invalid page"):
            await connection.execute("SELECT count(g) FROM notes")
    found = await mapped_until(lab, "the standby has checked itself", "failover")
    assert found["point"] is None, "a restore would lose what a failover keeps"
    assert found["commands"] == [f"hmsdr plan failover {EAST} {WEST}"]
    conditions = {each["region"]: each["condition"] for each in found["copies"]}
    assert conditions == {EAST: "damaged", WEST: "sound"}
