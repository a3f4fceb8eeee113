"""Chat webhooks (Slack, Microsoft Teams and what behaves like them): one JSON message, posted once.

It delivers and judges nothing: who is told, and what, is its callers' part. The URL is a secret: it is in no error.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from hmsdr.drivers.errors import (
    DriverError,
    OutcomeUnknownError,
    PermanentError,
    TemporaryError,
    asked_to_wait,
)

_OK = range(200, 300)
_TRUSTED_SECONDS = 60.0
_CORRECT = "Correct channels.endpoints"
_UNDELIVERED = b"Webhook message delivery failed"
"""How Teams's connectors begin a 200 that is none: documented for their rate limit."""
_READ = 4096
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Webhook:
    """One incoming webhook.

    Args:
        url: where to post; a secret.
        ca_file: certificate authority to trust; None means the system's store.
    """

    def __init__(self, url: str, ca_file: str | Path | None = None) -> None:
        self._url = url
        self._ca_file = ca_file

    async def post(self, message: dict[str, Any], *, deadline: float) -> None:
        """Post `message` as JSON within `deadline` seconds.

        Raises:
            TemporaryError: not delivered; it may be tried again.
            PermanentError: refused; the same again cannot help.
            OutcomeUnknownError: the answer was lost: it may have been delivered.
        """
        doing = f"posting to the webhook at {_host(self._url)}"
        try:
            async with (
                asyncio.timeout(deadline),
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._trust(doing))) as session,
                session.post(self._url, json=message, allow_redirects=False) as answer,
            ):
                status, said = answer.status, await answer.content.read(_READ)
                wait = asked_to_wait(answer.headers.get("Retry-After"), datetime.now(UTC))
        except aiohttp.ClientConnectorCertificateError as error:
            found = f"its certificate is not trusted: {error.certificate_error}"
            raise PermanentError(doing, found, "Check traffic.ca_file, and whose certificate it is") from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):
            raise PermanentError(doing, "it is no URL", _CORRECT) from None
        except aiohttp.ClientConnectorError as error:
            raise TemporaryError(doing, f"not reachable: {error.os_error}", "Try again") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # The library's words may have the URL in them, in a form of their own: only the kind of error is told.
            found = (
                f"no answer within {deadline:g} s"
                if isinstance(error, TimeoutError)
                else f"the answer was lost ({type(error).__name__})"
            )
            raise OutcomeUnknownError(doing, found, "Look in the channel before repeating") from None
        if status not in _OK:
            raise _refused(doing, status, wait)
        if said.lstrip().startswith(_UNDELIVERED):
            raise TemporaryError(doing, "HTTP 200, but it says that it was not delivered", "Try again")

    def _trust(self, doing: str) -> ssl.SSLContext:
        try:
            return whom_to_trust(self._ca_file, int(time.monotonic() // _TRUSTED_SECONDS))
        except OSError as error:
            found = f"{self._ca_file}: {error.strerror or error}"
            raise PermanentError(doing, found, "Name a readable PEM file as certificate authority") from error


@functools.lru_cache(maxsize=4)
def whom_to_trust(ca_file: str | Path | None, minute: int) -> ssl.SSLContext:
    """Whom to trust, read anew each minute: reading it takes 30 ms, in which nothing else moves; a long list would wait for it.

    Args:
        ca_file: certificate authority to trust; None means the system's store.
        minute: in which it is read.

    Raises:
        OSError: the file cannot be read.
    """
    del minute  # a key of the cache
    return ssl.create_default_context(cafile=ca_file)


def _host(url: str) -> str:
    """The part of the URL that is no secret."""
    try:
        return urlsplit(url).hostname or "an address that cannot be read"
    except ValueError:
        return "an address that cannot be read"


def _refused(doing: str, status: int, wait: float | None) -> DriverError:
    if status in _TRY_AGAIN:
        return TemporaryError(doing, f"HTTP {status}", "Try again", after=wait)
    return PermanentError(doing, f"HTTP {status}", "Check the webhook's URL: it may have been revoked")
