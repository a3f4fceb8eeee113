"""Signed links: one person, one round of one incident, until one moment, and each counts once (CO-3). Pure.

What is signed is all that the link says. Whoever has a link can answer in that person's name, and nothing else: it goes where the call
itself goes. A link that was used, that is of an earlier round, or that is too old changes nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime

from hmsdr.decide.incident import Incident
from hmsdr.errors import RefusedError
from hmsdr.playbook.model import Playbook

PATH, CONTACT_PATH = "/a/", "/c/"
"""Where they are served; what follows is the token."""
SHORTEST_KEY = 32
MOST_TOKEN = 600
ACKNOWLEDGE, CONTACT = b"hmsdr/acknowledge/1\n", b"hmsdr/contact/1\n"
"""What a link is for; one for the one is none for the other."""
_MAC_BYTES = 16
"""128 bits of HMAC-SHA256: nobody guesses that, and a text message has little room."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a link says: `person` may acknowledge `incident` in its round `number`, until `expires`.

    ``seq`` is the event after which it was made: an answer of that person after it is the one for which the link was there.
    """

    incident: str
    number: int
    seq: int
    person: str
    expires: datetime


def key_of(playbook: Playbook) -> bytes | None:
    """The key that signs; None when the playbook wants no links.

    Raises:
        RefusedError: it is too short to keep anybody out.
    """
    links = playbook.channels.links
    if links is None:
        return None
    key = links.key.get_secret_value().encode()
    if len(key) < SHORTEST_KEY:
        raise RefusedError(
            "signing links",
            f"the key of channels.links has {len(key)} characters",
            f"At least {SHORTEST_KEY}, as of `openssl rand -hex 32`",
        )
    return key


def sign(key: bytes, link: Link, purpose: bytes = ACKNOWLEDGE) -> str:
    """The token of a link: what it says, and its signature, in characters that stand in any URL."""
    said = "\n".join(
        (link.incident, str(link.number), str(link.seq), str(int(link.expires.timestamp())), link.person)
    ).encode()
    return f"{_text(said)}.{_text(_mac(key, purpose + said))}"


def read(key: bytes, token: str, purpose: bytes = ACKNOWLEDGE) -> Link | None:
    """The link that `token` is; None when this key did not sign it. Whether it is still good is for the caller to judge."""
    said, _, mac = token.partition(".")
    if len(token) > MOST_TOKEN or not mac:
        return None
    try:
        raw, given = _bytes(said), _bytes(mac)
    except (ValueError, binascii.Error):
        return None
    if not hmac.compare_digest(_mac(key, purpose + raw), given):
        return None
    incident, number, seq, expires, person = raw.decode().split("\n", 4)
    return Link(incident, int(number), int(seq), person, datetime.fromtimestamp(int(expires), UTC))


def link_for(playbook: Playbook, incident: Incident, person: str, now: datetime) -> str | None:
    """The URL by which `person` acknowledges `incident` as it is now.

    None when the playbook wants none, or its key is no good: a call leaves without its link rather than not at all.
    """
    links = playbook.channels.links
    try:
        key = key_of(playbook)
    except RefusedError:
        return None
    if links is None or key is None:
        return None
    link = Link(incident.name, len(incident.rounds), incident.seq, person, now + links.valid)
    return f"{links.url.rstrip('/')}{PATH}{sign(key, link)}"


def _mac(key: bytes, said: bytes) -> bytes:
    return hmac.new(key, said, hashlib.sha256).digest()[:_MAC_BYTES]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _text(raw) != text:
        raise ValueError("not how it is written here")
    return raw
