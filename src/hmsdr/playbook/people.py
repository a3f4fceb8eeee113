"""Severities, people, audiences and cadences of the playbook (CL, CO, CM). Frozen data only."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from hmsdr.playbook.base import Duration, Secret, Section
from hmsdr.playbook.names import Bucket, Channel, HttpUrl, Reach
from hmsdr.playbook.topology import RegionName

Language = Literal["en", "es"]
Wording = Literal["technical", "executive", "clinical", "partner", "plain"]
SeverityName = Literal["SEV-0", "SEV-1", "SEV-2", "SEV-3"]


class Severity(Section):
    """One severity: what it means and how fast somebody must answer (CL-1, CL-2)."""

    title: str
    """Short name."""
    meaning: str
    """What must be the case for this severity."""
    response: Duration
    """Somebody must have answered after this long."""


class Person(Section):
    """Somebody who can be called (CO-1)."""

    name: str
    """Name; roles refer to it."""
    phone: Annotated[str, Field(pattern=r"^\+[1-9]\d{6,14}$")]
    """E.164: a plus sign and 7 to 15 digits."""
    email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
    """Email address."""


class Role(Section):
    """A role of the response team: who holds it, and who backs them up. Names of people."""

    title: str
    """What people call the role."""
    primary: str
    """Name of the person who holds it."""
    backup: str | None = None
    """Name of the person who is called when the first does not answer."""


class Contact(Section):
    """An entry of the emergency and vendor lists (CO-2)."""

    name: str
    """Who or what is reached."""
    reach: Reach
    """Phone number, email address or URL."""
    note: str = ""
    """What the caller should know."""


class Contacts(Section):
    """The emergency list and the vendor list (CO-2, AP-2)."""

    emergency: dict[str, tuple[Contact, ...]]
    """Emergency lists by name."""
    vendors: dict[str, tuple[Contact, ...]]
    """Vendor lists by name."""
    verify_every: Duration = timedelta(days=90)
    """Everybody of the team confirms number and address so often; with `channels.links` they are asked by themselves (CO-4)."""


class Audience(Section):
    """A group outside the response team and how it is told (CM-3)."""

    title: str
    """What people call the group."""
    channels: tuple[Literal["email", "sms", "banner", "automated-message", "direct"], ...]
    """How it is told."""
    wording: Wording = "executive"
    """In whose words: `technical` has the alerts, `clinical` what to do at the bedside, `plain` is for patients."""
    languages: Annotated[tuple[Language, ...], Field(min_length=1)] = ("en",)
    """Languages of `plain` messages; the others are English."""
    endpoints: dict[str, Secret] = Field(default_factory=dict)
    """By channel, where its messages go: an Apprise URL, or a webhook's. A channel without one is told by hand."""


class Cadence(Section):
    """When words are due (CM-2)."""

    first_word: Duration
    """First word after detection, at the latest."""
    update: Duration
    """Longest time between two updates while it lasts."""
    resolution: Duration
    """Resolution notice after resolving, at the latest."""


PerMinute = Annotated[int, Field(ge=1, le=60_000)]


class Rates(Section):
    """Messages that are sent in a minute, at most, on each kind of channel, before it begins to refuse them (CM-1)."""

    slack: PerMinute = 60
    """Slack's webhooks take about one a second, and answer 429 to more."""
    teams: PerMinute = 60
    """Microsoft Teams."""
    sms: PerMinute = 60
    """Text messages: one a second is what a plain number may send."""
    phone: PerMinute = 30
    """Calls."""
    email: PerMinute = 600
    """Mail: what your server takes from one sender."""
    others: PerMinute = 60
    """Each other kind of channel."""

    def of(self, kind: str) -> int:
        """Messages a minute on channels of `kind`, such as ``slack``."""
        return int(getattr(self, kind)) if kind in type(self).model_fields else self.others


class AnswerLinks(Section):
    """Signed links in calls and messages to the team, by which one person acknowledges one incident (CO-3)."""

    url: HttpUrl
    """Where the team reaches what `hmsdr incident keep --listen` serves, from a telephone, with both regions lost."""
    key: Secret
    """What signs them, of at least 32 characters; the same at every site. Another one ends all links that are out."""
    valid: Duration = timedelta(hours=24)
    """A link can be used for so long."""


class StatusPage(Section):
    """The public page, its feeds and the banner of the website: static files, readable when everything else is down (CM-3)."""

    url: HttpUrl
    """Where the public reads it: what serves the buckets."""
    buckets: Annotated[dict[RegionName, Bucket], Field(min_length=1)]
    """By region, the bucket it is published to; each is written by itself, so that one is enough."""
    prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]+/)*$")] = ""
    """Before each key: empty, or ending with a slash."""
    audience: str = "patients"
    """Whose languages it speaks."""
    show: Literal["after-first-word", "at-once"] = "after-first-word"
    """Whether an incident is public once its first word was said, or as soon as it is declared."""
    renew: Duration = timedelta(minutes=5)
    """While something goes on, it is written anew so often, with the time: a page that stands still is seen to."""


class WarRoom(Section):
    """Where the team of an incident meets; opened by `hmsdr incident keep` as soon as one is declared (IR-1)."""

    channel: Channel
    """Where the summary is posted, and the newer one when it changes; `channels.endpoints` has the way there."""
    bridge: HttpUrl | None = None
    """The link of the call that everybody joins."""
    every: Annotated[Duration, Field(ge=timedelta(seconds=1))] = timedelta(minutes=1)
    """A summary that has changed is posted anew at most so often."""


class InternalChannels(Section):
    """Internal channels in order of preference (CM-1)."""

    primary: Channel
    """Used first."""
    backup: Channel
    """Used when the first fails."""
    escalation: Channel
    """Used when both fail."""
    endpoints: dict[str, Secret] = Field(default_factory=dict)
    """Webhook URL of ``slack`` and ``teams``; of ``sms`` and ``phone`` a gateway (``twilio+https://ACCOUNT:TOKEN@HOST/FROM``) that
    reaches each who is called."""
    rates: Rates = Rates()
    """Messages in a minute, by kind of channel; they hold for the audiences' channels, too."""
    links: AnswerLinks | None = None
    """Links to acknowledge with one tap; without them, people use the command."""
    war_room: WarRoom | None = None
    """Where the team meets; without it, people open a room and note it."""
