"""Who is on call when, and how patiently people are called (CO-1, CO-3). Frozen data only; whose turn it is, `decide/oncall.py` says."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from hmsdr.playbook.base import Duration, Section

LOCAL_PATTERN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}$"
TIME_PATTERN = r"^\d{2}:\d{2}$"


def _local(value: Any) -> datetime:
    """A wall clock's date and time, without a zone: the schedule names that once."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value
    if isinstance(value, str) and re.fullmatch(LOCAL_PATTERN, value, re.ASCII):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("local_time", "a local date and time such as 2026-01-05T08:00")


def _time(value: Any) -> time:
    if isinstance(value, time):
        return value
    if isinstance(value, str) and re.fullmatch(TIME_PATTERN, value, re.ASCII):
        try:
            return time.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("time_of_day", "a time of day such as 22:00")


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PydanticCustomError(
            "zone", "a time zone of the IANA database, such as America/New_York"
        ) from None
    return value


LocalTime = Annotated[
    datetime,
    BeforeValidator(_local),
    PlainSerializer(lambda value: value.isoformat(timespec="minutes"), return_type=str),
    WithJsonSchema({"type": "string", "pattern": LOCAL_PATTERN, "examples": ["2026-01-05T08:00"]}),
]
TimeOfDay = Annotated[
    time,
    BeforeValidator(_time),
    PlainSerializer(lambda value: value.isoformat(timespec="minutes"), return_type=str),
    WithJsonSchema({"type": "string", "pattern": TIME_PATTERN, "examples": ["22:00"]}),
]
ZoneName = Annotated[str, AfterValidator(_zone)]


class Rotation(Section):
    """People who take turns; each turn begins at the same wall-clock time, also when the clocks change."""

    people: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of people, in turn."""
    starts: LocalTime
    """When the first one's first turn begins; before it, the role's primary is on call."""
    days: Annotated[int, Field(ge=1, le=366)] = 7
    """Length of a turn, in days of the calendar."""


class Override(Section):
    """Somebody takes over for a while; a later entry goes before an earlier one."""

    person: str
    """Name of the person who takes over."""
    begins: LocalTime
    """From then."""
    ends: LocalTime
    """Until then."""

    @model_validator(mode="after")
    def _in_order(self) -> Override:
        if self.ends <= self.begins:
            raise PydanticCustomError("in_order", "an end after the beginning")
        return self


class Duty(Section):
    """The schedule of one role."""

    time_zone: ZoneName | None = None
    """Zone of its times, where it is not that of the whole schedule."""
    rotation: Rotation | None = None
    """Who takes turns; without one the role's primary is always on call."""
    overrides: tuple[Override, ...] = ()
    """Exceptions: holidays, swapped shifts."""


class QuietHours(Section):
    """When nobody is called for an incident that can wait; SEV-0 and SEV-1 never wait."""

    begins: TimeOfDay
    """From then."""
    ends: TimeOfDay
    """Until then; earlier than `begins` means the next morning."""
    time_zone: ZoneName | None = None
    """Zone of its times, where it is not that of the whole schedule."""

    @model_validator(mode="after")
    def _some_time(self) -> QuietHours:
        if self.begins == self.ends:
            raise PydanticCustomError("some_time", "an end that is not the beginning")
        return self


class Calling(Section):
    """How people are called when nobody answers, or nothing is said (CO-3)."""

    step: Duration = timedelta(minutes=5)
    """From calling the backup to ringing the phones, and from there to everybody."""
    again: Duration = timedelta(hours=1)
    """Everybody has been called and still nothing: from then on once in so long."""
    presence: Duration = timedelta(minutes=30)
    """A commander of whom nothing is heard for so long is asked, then replaced (dead man's switch)."""

    @model_validator(mode="after")
    def _some_time(self) -> Calling:
        if min(self.step, self.again, self.presence) < timedelta(seconds=1):
            raise PydanticCustomError("some_time", "durations of at least 1s")
        return self


class OnCall(Section):
    """The on-call schedule."""

    time_zone: ZoneName = "UTC"
    """Zone of all its times."""
    roles: dict[str, Duty] = Field(default_factory=dict)
    """Schedule of each role that has one; who holds a role without one stands in `roles`."""
    quiet_hours: QuietHours | None = None
    """When SEV-2 and SEV-3 wait."""
    calling: Calling = Calling()
    """How patiently people are called."""
