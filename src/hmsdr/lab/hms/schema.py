"""The hospital's tables, the role of its services and a little synthetic data. Made once, and again without effect."""

from __future__ import annotations

from typing import Any, LiteralString
from uuid import NAMESPACE_DNS, UUID, uuid5

import psycopg
from psycopg import sql

from hmsdr.control.bootstrap import TABLES as AGENT_TABLES
from hmsdr.lab.hms.entities import ENTITIES, TABLES, Entity
from hmsdr.lab.layout import ZONE

ROLE = "hms_app"
"""What the services log in as; it may insert and read, never update, delete or change a table."""
USERS = tuple(f"clinic-{number}" for number in range(1, 9))
"""Logins that are there from the start."""

_CREATE_ROLE: LiteralString = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hms_app') THEN CREATE ROLE hms_app LOGIN; END IF;
END $$
"""


def create(connection: psycopg.Connection[Any]) -> None:
    """Make all that is missing, as a superuser. The agent's own two tables are made too, as the agent defines them.

    Args:
        connection: to the hospital's database.

    Raises:
        psycopg.Error: the server refused.
    """
    with connection.transaction():
        connection.execute(_CREATE_ROLE)
        connection.execute(AGENT_TABLES)
        for entity in ENTITIES:
            connection.execute(_table(entity))
            connection.execute(
                sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} (created_at)").format(
                    sql.Identifier(f"{entity.table}_newest"), sql.Identifier(entity.table)
                )
            )
        role = sql.Identifier(ROLE)
        tables = sql.SQL(", ").join(sql.Identifier(table) for table in TABLES)
        connection.execute(sql.SQL("GRANT SELECT, INSERT ON {} TO {}").format(tables, role))
        connection.execute(sql.SQL("GRANT SELECT ON hmsdr_epoch, hmsdr_heartbeat TO {}").format(role))
        for login in USERS:
            connection.execute(
                "INSERT INTO users (id, login, role) VALUES (%s, %s, 'clinic') ON CONFLICT DO NOTHING",
                (user_id(login), login),
            )


def user_id(login: str) -> UUID:
    """The fixed id of a login that is there from the start."""
    return uuid5(NAMESPACE_DNS, f"{login}.{ZONE}")


def _table(entity: Entity) -> sql.Composed:
    columns = [sql.SQL("id uuid PRIMARY KEY")]
    for field in entity.fields:
        # The kinds are an enumeration of our own: no text from outside reaches this.
        kind = sql.Identifier(field.kind.value)
        column: sql.Composable = sql.SQL("{} {} NOT NULL").format(sql.Identifier(field.name), kind)
        if field.references is not None:
            column = sql.SQL("{} REFERENCES {}").format(column, sql.Identifier(field.references))
        columns.append(column)  # type: ignore[arg-type]
    columns.append(sql.SQL("created_at timestamptz NOT NULL DEFAULT clock_timestamp()"))
    return sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(
        sql.Identifier(entity.table), sql.SQL(", ").join(columns)
    )
