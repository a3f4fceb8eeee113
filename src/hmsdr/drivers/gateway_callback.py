"""What a gateway with Twilio's API calls back with: whether it is signed by the account, and what became of which message.

The signature is the base64 of HMAC-SHA1, with the account's token, over the URL and then each field of the form, name and value, sorted
by name (https://www.twilio.com/docs/usage/security, "Validating Requests"). It reads; what is done with it is decided elsewhere.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from hmsdr.drivers.gateway import FINAL

HEADER = "X-Twilio-Signature"


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a message, by the gateway's own reference."""

    reference: str
    status: str

    @property
    def final(self) -> bool:
        """Whether it stays so."""
        return self.status in FINAL


def signature(token: str, url: str, form: Mapping[str, str]) -> str:
    """The signature of a request to `url` with this form."""
    text = url + "".join(f"{name}{form[name]}" for name in sorted(form))
    return b64encode(hmac.digest(token.encode(), text.encode(), "sha1")).decode()


def is_signed(token: str, url: str, form: Mapping[str, str], given: str) -> bool:
    """Whether `given` is that signature; it takes as long for every wrong one."""
    return hmac.compare_digest(signature(token, url, form).encode(), given.encode("utf-8", "replace"))


def read(form: Mapping[str, str]) -> Told | None:
    """What a status callback says, of a text message or a call; None when it is none."""
    for reference, status in (("MessageSid", "MessageStatus"), ("CallSid", "CallStatus")):
        if form.get(reference) and form.get(status):
            return Told(form[reference], form[status])
    return None
