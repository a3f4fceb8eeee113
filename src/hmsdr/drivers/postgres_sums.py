"""Tables as numbers: every row hashed by the server that has it, the hashes added up without order. One way of it for all who compare.

What is hashed is exact: numbers whose type calls different bytes equal (1.0 and 1.00) are hashed by their text. Only sums leave the
server, so memory stays small however large a table is. It compares nothing, and changes nothing but settings of its own session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from hmsdr.errors import FailedError

Connection = psycopg.AsyncConnection[Any]

_TABLES: LiteralString = """
SELECT n.nspname, c.relname, pg_relation_size(c.oid) / current_setting('block_size')::int, pg_table_size(c.oid),
       (SELECT coalesce(array_agg(ARRAY[a.attname::text, CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text ELSE '' END,
                                        a.attnotnull::text] ORDER BY a.attnum), '{}')
        FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT coalesce(array_agg(a.attname::text ORDER BY k.place), '{}')
        FROM pg_index AS i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND n.nspname NOT LIKE 'pg_toast%'
ORDER BY 1, 2
"""
_SETTINGS: tuple[LiteralString, ...] = (
    "SET search_path = pg_catalog",  # a function of somebody's own must not stand in for one that is meant
    "SET timezone = 'UTC'",
    "SET datestyle = 'ISO, YMD'",
    "SET intervalstyle = 'postgres'",
    "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
    "SET statement_timeout = 0",
    "SET lock_timeout = '5s'",
    "SET jit = off",
)
_BY_TEXT: LiteralString = 'hashtextextended({}::text COLLATE "C", {})'
_BY_TYPE: dict[str, LiteralString] = {
    "int2": "hashint2extended({}, {})",
    "int4": "hashint4extended({}, {})",
    "int8": "hashint8extended({}, {})",
    "oid": "hashoidextended({}, {})",
    "bool": "hashint4extended({}::int4, {})",
    "uuid": "uuid_hash_extended({}, {})",
    "bpchar": 'hashbpcharextended({} COLLATE "C", {})',
    "time": "time_hash_extended({}, {})",
    "timestamp": "timestamp_hash_extended({}, {})",
    "timestamptz": "timestamp_hash_extended({} AT TIME ZONE 'UTC', {})",
}
"""Two to four times as fast as text, and as exact; every function is there from PostgreSQL 15 on."""
_NEWER = 180000
_BY_TYPE_NEWER: dict[str, LiteralString] = {
    **_BY_TYPE,
    "bool": "hashboolextended({}, {})",
    "date": "hashdateextended({}, {})",
    "timestamptz": "timestamptz_hash_extended({}, {})",
    "bytea": "hashbyteaextended({}, {})",
    "numeric": "hashbyteaextended(numeric_send({}), {})",
    "float4": "hashbyteaextended(float4send({}), {})",
    "float8": "hashbyteaextended(float8send({}), {})",
    "interval": "hashbyteaextended(interval_send({}), {})",
}
"""From PostgreSQL 18 on. What a server sends in binary tells 1.0 from 1.00, and 24 hours from a day, as text does."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``type`` is empty for one that PostgreSQL does not bring itself."""

    name: str
    type: str
    not_null: bool


@dataclass(frozen=True, slots=True)
class Table:
    """An ordinary table (or a materialized view) and what is needed to add it up; ``key`` is its primary key, empty without one."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    server: int = 0
    """Version of the server that has it, as PostgreSQL numbers it (180006)."""

    @property
    def title(self) -> str:
        """As people write it."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Size:
    """How large a table is: pages of its own, and bytes with what lies beside them (TOAST)."""

    pages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Rows as a number: how many, and the sum of their hashes (text, as it is a large number)."""

    rows: int
    sum: str

    def __add__(self, other: Sum) -> Sum:
        """Both together."""
        return Sum(self.rows + other.rows, str(int(self.sum) + int(other.sum)))


NOTHING = Sum(0, "0")


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of a table from `first` up to and without `end`; None means to its end, however long it becomes."""

    first: int
    end: int | None


EVERYTHING = Pages(0, None)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it lies, the values of its primary key as text, its hash."""

    place: str
    key: tuple[str, ...]
    hash: int


async def prepare(connection: Connection) -> None:
    """Give the session the settings under which the same row has the same text everywhere."""
    for statement in _SETTINGS:
        await connection.execute(statement)


async def tables(connection: Connection) -> list[tuple[Table, Size]]:
    """Every table of the connection's database that outlives a crash, by name."""
    found = []
    for schema, name, pages, size, columns, key in await (await connection.execute(_TABLES)).fetchall():
        typed = tuple(Column(str(each[0]), str(each[1]), each[2] == "true") for each in columns)
        found.append(
            (
                Table(str(schema), str(name), typed, tuple(map(str, key)), connection.info.server_version),
                Size(int(pages), int(size)),
            )
        )
    return found


async def add_up(connection: Connection, table: Table, pages: Pages = EVERYTHING) -> Sum:
    """The rows of `pages` as a sum."""
    query = sql.SQL("SELECT count(*), coalesce(sum({}), 0)::text FROM {} {}").format(
        _hash(table), _identifier(table), _within(pages)
    )
    row = await (await connection.execute(query)).fetchone()
    return NOTHING if row is None else Sum(int(row[0]), str(row[1]))


async def rows_of(connection: Connection, table: Table, pages: Pages, limit: int) -> list[Row]:
    """The rows of `pages` one by one, at most `limit`."""
    key = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in table.key)
    query = sql.SQL("SELECT ctid::text, ARRAY[{}]::text[], {} FROM {} {} LIMIT {}").format(
        key, _hash(table), _identifier(table), _within(pages), sql.Literal(limit)
    )
    found = await (await connection.execute(query)).fetchall()
    return [Row(str(place), tuple(map(str, values)), int(number)) for place, values, number in found]


async def sums(connection: Connection, *, deadline: float) -> dict[str, Sum]:
    """Every table as a `Sum`, one after the other, in whatever transaction the connection is in.

    Raises:
        FailedError: a table cannot be read, or it takes longer than `deadline` seconds.
    """
    found: dict[str, Sum] = {}
    title = ""
    try:
        async with asyncio.timeout(deadline):
            await prepare(connection)
            for table, _ in await tables(connection):
                title = table.title
                found[title] = await add_up(connection, table)
    except TimeoutError as error:
        raise FailedError(
            "adding up tables", f"not done within {deadline:g} s ({title})", "Give it more time"
        ) from error
    except psycopg.Error as error:
        raise FailedError(f"adding up {title or 'tables'}", str(error).strip(), "Try again") from error
    return found


def _identifier(table: Table) -> sql.Identifier:
    return sql.Identifier(table.schema, table.name)


def _within(pages: Pages) -> sql.Composable:
    """Rows by where they lie: read in order, without an index. A physical standby has each row in the very same place."""
    if pages == EVERYTHING:
        return sql.SQL("")
    bounds: list[sql.Composable] = [
        sql.SQL("ctid >= {}::tid").format(sql.Literal(f"({pages.first},0)")),
    ]
    if pages.end is not None:
        bounds.append(sql.SQL("ctid < {}::tid").format(sql.Literal(f"({pages.end},0)")))
    return sql.SQL("WHERE ") + sql.SQL(" AND ").join(bounds)


def _hash(table: Table) -> sql.Composable:
    """A row's hash: those of its columns, each with a seed of its own, so that values which change places are seen."""
    forms = _BY_TYPE_NEWER if table.server >= _NEWER else _BY_TYPE
    return _xor([_column(column, seed, forms) for seed, column in enumerate(table.columns, start=1)])


def _xor(parts: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(" # ").join(parts)) if parts else sql.SQL("0::int8")


def _column(column: Column, seed: int, forms: Mapping[str, LiteralString]) -> sql.Composable:
    form = forms.get(column.type, _BY_TEXT)
    one = sql.SQL(form).format(sql.Identifier(column.name), sql.Literal(seed))
    # Another number for each column: that two of them are null, and which, makes a difference.
    null = sql.Literal(seed * 0x9E3779B97F4A7 + 1)
    return one if column.not_null else sql.SQL("coalesce({}, {}::int8)").format(one, null)
