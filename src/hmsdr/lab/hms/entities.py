"""What each service keeps: the one description from which tables, queries and checks of input are made. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

_LONGEST_TEXT = 2000


class Kind(StrEnum):
    """Type of a field, as PostgreSQL writes it."""

    TEXT = "text"
    UUID = "uuid"
    DATE = "date"
    MOMENT = "timestamptz"
    INTEGER = "int8"


@dataclass(frozen=True, slots=True)
class Field:
    """A required field; ``references`` is the table that a UUID points to."""

    name: str
    kind: Kind
    references: str | None = None


@dataclass(frozen=True, slots=True)
class Entity:
    """A kind of row: which service has it, under which path segment, in which table."""

    service: str
    path: str
    table: str
    fields: tuple[Field, ...]

    @property
    def insert(self) -> str:
        """SQL that writes one row once; gives (rows inserted, instance, epoch, moment) of the same transaction.

        An id seen before is answered as existing, so that a client may repeat a write whose answer it lost.
        """
        names = ", ".join(["id", *(field.name for field in self.fields)])
        values = ", ".join(["%s", *(f"%s::{field.kind}" for field in self.fields)])
        return (
            f"WITH new AS (INSERT INTO {self.table} ({names}) VALUES ({values}) "  # noqa: S608 - names of this file
            "ON CONFLICT (id) DO NOTHING RETURNING id) "
            "SELECT (SELECT count(*) FROM new), current_setting('cluster_name'), "
            "(SELECT max(epoch) FROM hmsdr_epoch), clock_timestamp()"
        )

    @property
    def select(self) -> str:
        """SQL for one row by its id."""
        return f"SELECT {self._columns} FROM {self.table} WHERE id = %s"  # noqa: S608 - names of this file

    @property
    def newest(self) -> str:
        """SQL for the newest rows."""
        return f"SELECT {self._columns} FROM {self.table} ORDER BY created_at DESC LIMIT %s"  # noqa: S608

    @property
    def columns(self) -> tuple[str, ...]:
        """Names in the order in which `select` gives them."""
        return ("id", *(field.name for field in self.fields), "created_at")

    @property
    def _columns(self) -> str:
        return ", ".join(self.columns)

    def read(self, body: object) -> tuple[UUID, tuple[str | int, ...]]:
        """The id and the values of a request's JSON `body`, in the order of the fields.

        Raises:
            ValueError: what is wrong with which field, for the client to read.
        """
        if not isinstance(body, Mapping):
            raise ValueError("the body must be a JSON object")  # noqa: TRY004 - all faults of a body are alike
        unknown = sorted(set(body) - {"id"} - {field.name for field in self.fields})
        if unknown:
            raise ValueError(f"{unknown[0]}: unknown field; known are {', '.join(self.columns[:-1])}")
        return _uuid("id", body.get("id")), tuple(
            _value(field, body.get(field.name)) for field in self.fields
        )


def _value(field: Field, raw: object) -> str | int:
    if field.kind is Kind.INTEGER:
        if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw < 2**53:
            raise ValueError(f"{field.name}: a whole number from 0 is required")
        return raw
    if field.kind is Kind.UUID:
        return str(_uuid(field.name, raw))
    if not isinstance(raw, str) or not raw.strip() or len(raw) > _LONGEST_TEXT or "\0" in raw:
        raise ValueError(f"{field.name}: a text of 1 to {_LONGEST_TEXT} characters is required")
    try:
        if field.kind is Kind.DATE:
            date.fromisoformat(raw)
        elif field.kind is Kind.MOMENT:
            datetime.fromisoformat(raw)
    except ValueError:
        raise ValueError(f"{field.name}: {raw[:40]!r} is not an ISO 8601 {field.kind}") from None
    return raw


def _uuid(name: str, raw: object) -> UUID:
    if isinstance(raw, str) and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", raw):
        return UUID(raw)
    raise ValueError(f"{name}: a UUID in lower case is required")


_PATIENT = Field("patient_id", Kind.UUID, references="patients")

ENTITIES = (
    Entity("patient", "patients", "patients", (
        Field("name", Kind.TEXT), Field("born", Kind.DATE), Field("clinic", Kind.TEXT))),
    Entity("appointment", "appointments", "appointments", (
        _PATIENT, Field("starts_at", Kind.MOMENT), Field("reason", Kind.TEXT))),
    Entity("clinical", "notes", "clinical_notes", (
        _PATIENT, Field("author", Kind.TEXT), Field("text", Kind.TEXT))),
    Entity("clinical", "observations", "observations", (
        _PATIENT, Field("code", Kind.TEXT), Field("value", Kind.INTEGER), Field("unit", Kind.TEXT))),
    Entity("billing", "invoices", "invoices", (
        _PATIENT, Field("cents", Kind.INTEGER), Field("item", Kind.TEXT))),
    Entity("auth", "users", "users", (
        Field("login", Kind.TEXT), Field("role", Kind.TEXT))),
    Entity("auth", "sessions", "sessions", (
        Field("user_id", Kind.UUID, references="users"), Field("device", Kind.TEXT))),
)  # fmt: skip
"""All of them; what is referenced comes before what refers to it."""

TABLES = tuple(entity.table for entity in ENTITIES)


def of_service(service: str) -> tuple[Entity, ...]:
    """The entities of one service, its main one first."""
    return tuple(entity for entity in ENTITIES if entity.service == service)
