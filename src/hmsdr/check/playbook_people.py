"""Whether somebody can be reached in the night it is needed: roles, backups, lists. Reads, never repairs."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from hmsdr.playbook.findings import Finding, Keys, nearest
from hmsdr.playbook.model import Playbook

ROLES = ("incident-commander", "technical-lead", "operations-manager", "security-lead")
ROLES_WITH_BACKUP = ("incident-commander", "technical-lead")
EMERGENCY_LISTS = ("incident-response-team", "technical-support", "management", "external-partners")
VENDOR_LISTS = ("cloud-provider", "database-support", "security-services", "network-services")
AUDIENCES = ("clinical-staff", "administrative-staff", "patients", "partners")
_MADE_UP_NUMBER = re.compile(r"\+1\d{3}55501\d\d")
_MADE_UP_ADDRESS = re.compile(r".*(\.example|@example\.(com|net|org)|\.invalid|\.test)", re.IGNORECASE)


def check(playbook: Playbook) -> Iterator[Finding]:
    """Findings about people, roles and lists (CO-1, CO-2)."""
    yield from _people(playbook)
    yield from _roles(playbook)
    yield from _on_call(playbook)
    yield from _alone(playbook)
    yield from _lists(playbook)
    yield from _audiences(playbook)
    yield from _war_room(playbook)
    yield from _status_page(playbook)
    yield from _made_up(playbook)


def _people(playbook: Playbook) -> Iterator[Finding]:
    names = Counter(person.name for person in playbook.people)
    phones = Counter(person.phone for person in playbook.people)
    emails = Counter(person.email.lower() for person in playbook.people)
    for index, person in enumerate(playbook.people):
        if names[person.name] > 1:
            yield Finding(("people", index, "name"), f"{person.name!r}, used twice", "names that differ")
        if phones[person.phone] > 1:
            keys = ("people", index, "phone")
            yield Finding(keys, f"{person.phone}, used twice", "a phone of one's own", level="warning")
        if emails[person.email.lower()] > 1:
            keys = ("people", index, "email")
            yield Finding(keys, f"{person.email}, used twice", "an address of one's own", level="warning")


def _roles(playbook: Playbook) -> Iterator[Finding]:
    known = {person.name for person in playbook.people}
    for name in ROLES:
        if name not in playbook.roles:
            hint = nearest(name, playbook.roles).replace("Did you mean", "Rename")
            yield Finding(("roles", name), "nothing", "the role and who holds it", hint)
    for name, role in playbook.roles.items():
        for key, person in (("primary", role.primary), ("backup", role.backup)):
            if person is not None and person not in known:
                hint = nearest(person, known)
                yield Finding(
                    ("roles", name, key), f"the unknown person {person!r}", "a name of people", hint
                )
        if role.backup is None and name in ROLES_WITH_BACKUP:
            remedy = "Somebody else must be called when the first does not answer."
            yield Finding(("roles", name, "backup"), "nothing", "a person; this role needs a backup", remedy)
        if role.backup == role.primary:
            yield Finding(("roles", name, "backup"), f"{role.backup!r}, who is the primary", "somebody else")


def _on_call(playbook: Playbook) -> Iterator[Finding]:
    known = {person.name for person in playbook.people}
    for name, duty in playbook.on_call.roles.items():
        keys: Keys = ("on_call", "roles", name)
        if name not in playbook.roles:
            yield Finding(
                keys, f"the unknown role {name!r}", "a name of roles", nearest(name, playbook.roles)
            )
        turns = () if duty.rotation is None else duty.rotation.people
        named: list[tuple[Keys, str]] = [
            ((*keys, "rotation", "people", index), person) for index, person in enumerate(turns)
        ]
        named += [
            ((*keys, "overrides", index, "person"), each.person) for index, each in enumerate(duty.overrides)
        ]
        for place, person in named:
            if person not in known:
                hint = nearest(person, known)
                yield Finding(place, f"the unknown person {person!r}", "a name of people", hint)


def _war_room(playbook: Playbook) -> Iterator[Finding]:
    """A room whose channel leads nowhere would be announced elsewhere."""
    room = playbook.channels.war_room
    if room is None:
        return
    kind = room.channel.partition(":")[0]
    keys: Keys = ("channels", "war_room", "channel")
    if kind in ("sms", "phone", "email"):
        yield Finding(keys, f"{room.channel!r}", "a chat's channel, where a summary can be pinned")
    elif kind not in playbook.channels.endpoints:
        remedy = f"Add channels.endpoints.{kind}: without it the summary goes to {playbook.channels.primary}."
        yield Finding(keys, f"{kind!r}, which has no endpoint", "a channel with one", remedy, level="warning")


def _alone(playbook: Playbook) -> Iterator[Finding]:
    """One person in several places is missing in all of them at once."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, role in playbook.roles.items():
        places[role.primary].append(name)
        if role.backup is not None and role.backup != role.primary:
            places[role.backup].append(f"backup of {name}")
    for person, held in places.items():
        if len(held) > 1:
            found = f"{person!r} as {' and '.join(held)}"
            yield Finding(
                ("roles",), found, "one place for each person", "A single point of failure.", "warning"
            )


def _lists(playbook: Playbook) -> Iterator[Finding]:
    contacts = playbook.contacts
    for field, wanted, lists in (
        ("emergency", EMERGENCY_LISTS, contacts.emergency),
        ("vendors", VENDOR_LISTS, contacts.vendors),
    ):
        for name in wanted:
            if name not in lists:
                hint = nearest(name, lists).replace("Did you mean", "Rename")
                yield Finding(("contacts", field, name), "nothing", "a list of contacts", hint)
        for name, entries in lists.items():
            if not entries:
                yield Finding(("contacts", field, name), "an empty list", "at least one contact")


def _audiences(playbook: Playbook) -> Iterator[Finding]:
    for name in AUDIENCES:
        if name not in playbook.audiences:
            yield Finding(("audiences", name), "nothing", "the audience and its channels", level="warning")
    for name, audience in playbook.audiences.items():
        if not audience.channels:
            yield Finding(("audiences", name, "channels"), "an empty list", "at least one channel")


def _status_page(playbook: Playbook) -> Iterator[Finding]:
    page = playbook.status_page
    if page is None:
        return
    if page.audience not in playbook.audiences:
        hint = nearest(page.audience, playbook.audiences)
        yield Finding(
            ("status_page", "audience"),
            f"the unknown audience {page.audience!r}",
            "a name of audiences",
            hint,
        )
    for region in page.buckets:
        if region not in playbook.sites():
            hint = nearest(region, playbook.sites())
            yield Finding(
                ("status_page", "buckets", region), "the name of no site", "a region, or the witness", hint
            )
    if len(set(page.buckets.values())) == 1:
        remedy = "The page must be readable when a region is lost."
        yield Finding(("status_page", "buckets"), "one bucket", "one in each region", remedy, "warning")


def _made_up(playbook: Playbook) -> Iterator[Finding]:
    count = sum(
        bool(_MADE_UP_NUMBER.fullmatch(person.phone) or _MADE_UP_ADDRESS.fullmatch(person.email))
        for person in playbook.people
    )
    if count:
        found = f"{count} with a number or address from the ranges reserved for examples"
        remedy = "Nobody answers there: put your own people in before relying on this playbook."
        yield Finding(("people",), found, "people who can be reached", remedy, "warning")
