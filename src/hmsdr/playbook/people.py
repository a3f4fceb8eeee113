"""Severities, people, audiences and cadences of the playbook (CL, CO, CM). Frozen data only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hmsdr.playbook.base import Duration, Model

SeverityName = Literal["SEV-0", "SEV-1", "SEV-2", "SEV-3"]


class Severity(Model):
    """One severity: what it means and how fast somebody must answer (CL-1, CL-2)."""

    title: str
    meaning: str
    response: Duration


class Person(Model):
    """Somebody who can be called (CO-1)."""

    name: str
    phone: Annotated[str, Field(pattern=r"^\+[1-9]\d{6,14}$")]
    """E.164: a plus sign and 7 to 15 digits."""
    email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]


class Role(Model):
    """A role of the response team: who holds it, and who backs them up. Names of people."""

    title: str
    primary: str
    backup: str | None = None


class Contact(Model):
    """An entry of the emergency and vendor lists (CO-2)."""

    name: str
    reach: str
    note: str = ""


class Contacts(Model):
    """The emergency list and the vendor list (CO-2, AP-2)."""

    emergency: dict[str, tuple[Contact, ...]]
    vendors: dict[str, tuple[Contact, ...]]


class Audience(Model):
    """A group outside the response team and how it is told (CM-3)."""

    title: str
    channels: tuple[Literal["email", "sms", "banner", "automated-message", "direct"], ...]


class Cadence(Model):
    """When words are due (CM-2)."""

    first_word: Duration
    update: Duration
    resolution: Duration


class InternalChannels(Model):
    """Internal channels in order of preference (CM-1)."""

    primary: str
    backup: str
    escalation: str
