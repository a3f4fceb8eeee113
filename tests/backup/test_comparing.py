"""The data of a primary and its standby compared, on real servers: equal under writes, and every way of not being equal.

A physical standby differs from its primary only when something is broken. So its files are edited while it is stopped, as bad
hardware would, and their checksums are made right again, so that PostgreSQL itself notices nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from bank import Bank, Opened
from hospital import EAST, WEST, until

from hmsdr.decide.equality import COMPARED, Difference, Kind
from hmsdr.drivers.errors import TemporaryError
from hmsdr.drivers.postgres import Postgres
from hmsdr.log.sqlite import SqliteStore
from hmsdr.runbook.comparing import MIB, Compared, Comparison, Pace

ODD_TABLES = """
CREATE SCHEMA "Odd Names";
CREATE TABLE "Odd Names"."a ""quoted"" table" ("the key" int PRIMARY KEY, "sel%ect" text);
INSERT INTO "Odd Names"."a ""quoted"" table" SELECT n, 'v' || n FROM generate_series(1, 50) n;
CREATE TABLE visits (ward text COLLATE "POSIX", day date, bed char(4), PRIMARY KEY (ward, day, bed));
INSERT INTO visits SELECT 'Wörd ' || n, date 'infinity', 'b' || n % 7 FROM generate_series(1, 300) n;
CREATE TABLE keyless (a int, b text, c numeric, d float8, e timestamptz, f jsonb, g int[], h bytea, i bool, j interval);
INSERT INTO keyless VALUES (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (1, '', 1.00, '-0', 'infinity', '{"a": 1.0}', '{NULL,2}', '\\x00', true, '1 month'), (NULL, 'x', 'NaN', 'NaN', now(), 'null', '{}', '', false, '30 days');
CREATE TABLE by_uuid (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), note text);
INSERT INTO by_uuid (note) SELECT repeat(md5(n::text), 200) FROM generate_series(1, 200) n;
CREATE TABLE nothing_in_it (id int PRIMARY KEY);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM by_uuid;
CREATE UNLOGGED TABLE not_for_others (id int);
CREATE TABLE beds (id int PRIMARY KEY, label text NOT NULL) WITH (autovacuum_enabled = off);
INSERT INTO beds SELECT n, 'bed ' || lpad(n::text, 6, '0') FROM generate_series(1, 30000) n;
CREATE TABLE rooms (label text NOT NULL) WITH (autovacuum_enabled = off);
INSERT INTO rooms SELECT 'room ' || lpad(n::text, 6, '0') FROM generate_series(1, 100) n;
CREATE TABLE table_of_one_side (id int PRIMARY KEY);
"""


async def compared(bank: Bank, *, jobs: int = 2, **more: float) -> Compared:
    sides = [bank.playbook.regions[name].postgres for name in (EAST, WEST)]
    return await Comparison(*sides, rate=0, jobs=jobs, **more).run(deadline=120)


async def caught_up(bank: Bank) -> int:
    lsn = int(await bank.sql("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"))

    async def replayed() -> bool:
        return await Postgres(bank.playbook.regions[WEST].postgres).replayed_lsn(deadline=5) >= lsn

    await until("the standby has replayed it", replayed, 60)
    return lsn


def tuple_with(page: bytearray, text: bytes) -> int:
    """Where the tuple that has `text` begins in its page."""
    for at in range(24, int.from_bytes(page[12:14], "little"), 4):
        item = int.from_bytes(page[at : at + 4], "little")
        offset, flags, length = item & 0x7FFF, item >> 15 & 3, item >> 17
        if flags == 1 and text in page[offset : offset + length]:
            return offset
    raise AssertionError(f"no tuple has {text!r}")


def edit(path: Path, text: bytes, change: Callable[[bytearray, int], None]) -> None:
    content = path.read_bytes()
    first = content.index(text) // 8192 * 8192
    page = bytearray(content[first : first + 8192])
    change(page, tuple_with(page, text))
    with path.open("r+b") as file:
        file.seek(first)
        file.write(page)


def rewritten(old: bytes, new: bytes) -> Callable[[bytearray, int], None]:
    def change(page: bytearray, at: int) -> None:
        where = page.index(old, at)
        page[where : where + len(old)] = new

    return change


def never_inserted(page: bytearray, at: int) -> None:
    mask = int.from_bytes(page[at + 20 : at + 22], "little") & ~0x0100 | 0x0200
    page[at + 20 : at + 22] = mask.to_bytes(2, "little")


def never_deleted(page: bytearray, at: int) -> None:
    mask = int.from_bytes(page[at + 20 : at + 22], "little") & ~0x0400 | 0x0800
    page[at + 20 : at + 22] = mask.to_bytes(2, "little")


async def broken(bank: Bank, edits: list[tuple[str, bytes, Callable[[bytearray, int], None]]]) -> None:
    """Edit the standby's files, behind its back."""
    await bank.sql("CHECKPOINT")
    await caught_up(bank)
    await bank.sql("CHECKPOINT", WEST)
    files = {
        name: str(await bank.sql(f"SELECT pg_relation_filepath('{name}')"))
        for name in {table for table, _, _ in edits}
    }
    server = bank.servers[WEST]
    assert await server.stop_fast(30)
    for words in ("--disable", "--enable"):
        status, output, errors = await server.tool(
            "pg_checksums", words, "-D", str(server.directory), deadline=60
        )
        assert status == 0, (output, errors)
        if words == "--disable":
            for table, text, change in edits:
                edit(server.directory / files[table], text, change)
    await bank.start(WEST, writable=False)
    await caught_up(bank)


@pytest.mark.req("RC-3")
async def test_odd_tables_are_equal_and_stay_so_under_writes_and_when_moments_are_short(
    open_banks: Opened,
) -> None:
    bank = await open_banks()
    await bank.both()
    await bank.sql(ODD_TABLES)
    instance = bank.playbook.regions[EAST].postgres
    stop = asyncio.Event()

    async def write(number: int) -> int:
        connection = await psycopg.AsyncConnection.connect(
            host=instance.host, dbname="hms", user="postgres", autocommit=True
        )
        done = 0
        async with connection:
            while not stop.is_set():
                await connection.execute(
                    "INSERT INTO patients (name) SELECT 'p' || n FROM generate_series(1, 5) n"
                )
                await connection.execute(
                    "UPDATE beds SET label = label || '.' WHERE id = %s", (done % 30000 + 1,)
                )
                await connection.execute(
                    "DELETE FROM visits WHERE bed = 'b1' AND ward = 'Wörd ' || %s", (done,)
                )
                if number:  # long ones, with a part that is taken back
                    async with connection.transaction():
                        await connection.execute(
                            "UPDATE by_uuid SET note = 'changed' WHERE id = (SELECT id FROM by_uuid LIMIT 1)"
                        )
                        with pytest.raises(ZeroDivisionError):
                            async with connection.transaction():
                                await connection.execute("DELETE FROM keyless")
                                raise ZeroDivisionError
                        await asyncio.sleep(0.02)
                done += 1
        return done

    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(write(number)) for number in range(3)]
        try:
            looks = [
                await compared(bank),
                await compared(bank, jobs=4),
                await compared(bank, jobs=1, hold=0.001),
            ]
        finally:
            stop.set()
    assert [each.differences for each in looks] == [[], [], []]
    assert min(each.result() for each in writers) > 3
    assert all(each.sums["public.no_columns"].rows == 1 for each in looks)
    assert looks[0].sums['Odd Names.a "quoted" table'].rows == 50
    assert {"public.seen", "public.keyless", "public.nothing_in_it"} < looks[0].sums.keys()
    assert "public.not_for_others" not in looks[0].sums
    assert len(looks[2].lsns) > 1, "each moment was too short for everything"
    # Both sides say the same as the one way of adding up that is used for backups.
    assert looks[0].sums["public.patients"].rows < looks[1].sums["public.patients"].rows


@pytest.mark.req("RC-3")
async def test_what_is_not_equal_is_named_by_table_and_key(open_banks: Opened) -> None:
    bank = await open_banks()
    await bank.both()
    await bank.sql(ODD_TABLES)
    instance = bank.playbook.regions[EAST].postgres
    await (await SqliteStore.open(bank.directory / "store.db", create=True, lease_seconds=30)).close()
    # While somebody still sees what was deleted, it is not removed from its page.
    keeper = await psycopg.AsyncConnection.connect(host=instance.host, dbname="hms", user="postgres")
    await keeper.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    await keeper.execute("SELECT 1")
    assert (await compared(bank)).equal
    await bank.sql("DELETE FROM beds WHERE id = 29000")
    await bank.sql("DELETE FROM rooms WHERE label = 'room 000050'")
    await broken(
        bank,
        [
            ("beds", b"bed 000007", rewritten(b"bed 000007", b"bed 0000o7")),
            ("beds", b"bed 015000", never_inserted),
            ("beds", b"bed 029000", never_deleted),
            ("rooms", b"room 000050", never_deleted),
            ("rooms", b"room 000060", rewritten(b"room", b"roam")),
            ("pg_class", b"table_of_one_side", rewritten(b"table_of", b"wable_of")),
        ],
    )
    done = await asyncio.to_thread(bank.hmsdr, "compare", "--json")
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    found = {each["table"]: each for each in said["differences"]}
    assert set(found) == {
        "public.beds",
        "public.rooms",
        "public.table_of_one_side",
        "public.wable_of_one_side",
    }
    beds = {(row["kind"], row["key"]) for row in found["public.beds"]["rows"]}
    assert beds == {("changed", "id=7"), ("missing", "id=15000"), ("extra", "id=29000")}
    rooms = {(row["kind"], row["key"]) for row in found["public.rooms"]["rows"]}
    assert rooms == {("extra", "page 0 row 50"), ("changed", "page 0 row 60")}
    assert found["public.table_of_one_side"]["found"] == "the standby has no such table"
    shown = await asyncio.to_thread(bank.hmsdr, "compare")
    assert shown.returncode == 1
    assert "NOT equal" in shown.stdout
    assert "id=7 changed" in shown.stdout
    store = await SqliteStore.open(bank.directory / "store.db")
    noted = [event for event in await store.read() if event.kind == COMPARED]
    await store.close()
    assert [event.data["equal"] for event in noted] == [False, False]
    assert "id=7" not in json.dumps(noted[0].data), "no key of a row in the log"
    await keeper.close()


async def test_two_that_cannot_be_compared_are_refused(open_banks: Opened) -> None:
    bank = await open_banks()
    await bank.both()
    await bank.servers[WEST].kill(10)
    await (await SqliteStore.open(bank.directory / "store.db", create=True, lease_seconds=30)).close()
    done = await asyncio.to_thread(bank.hmsdr, "compare")
    assert done.returncode == 2
    assert "us-west-2" in done.stderr
    with pytest.raises(TemporaryError, match="refused"):
        await compared(bank)
    await bank.start(WEST, writable=False, follow=False)  # it answers, and follows nobody
    await bank.admit(10)
    with pytest.raises(TemporaryError, match="behind"):
        await compared(bank)


async def test_the_rate_is_kept() -> None:
    pace, clock = Pace(100 * MIB), asyncio.get_running_loop().time
    began = clock()
    await asyncio.gather(*(pace.take(5 * MIB) for _ in range(8)))
    assert 0.3 < clock() - began < 2


def test_a_difference_in_words() -> None:
    whole = Difference("public.beds", (2048, None), more=True)
    assert whole.words() == "public.beds (pages 2048 to the end): rows differ"
    assert (
        Difference("a.b", found="the standby has no such table").words()
        == "a.b: the standby has no such table"
    )
    assert Kind.CHANGED == "changed"
