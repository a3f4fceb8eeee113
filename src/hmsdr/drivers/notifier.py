"""Services that carry a message (mail, SMS, paging and a hundred others) by Apprise's URLs: one message, sent once.

It delivers and judges nothing. The URL is a secret: it is in no error, and what the library logs is not passed on. The library says that a
message was taken, or that it was not, and not why: what was not taken is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from hmsdr.drivers.errors import OutcomeUnknownError, PermanentError, TemporaryError

_AT_ONCE = 16
_REMEDY = "Check the URL, by hand: `apprise -vv -b test URL`"
_threads = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="hmsdr-notify")


class Notifier:
    """One service, or several of one kind.

    Args:
        url: Apprise's, such as ``mailtos://user:password@host?to=ward@hospital``; a secret.
        name: what it is called in errors.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name

    async def send(self, subject: str, text: str, *, deadline: float) -> None:
        """Send it within `deadline` seconds.

        Raises:
            TemporaryError: not taken; it may be tried again.
            PermanentError: the URL is none of Apprise's: the same again cannot help.
            OutcomeUnknownError: no answer in time: it may have been delivered.
        """
        doing = f"sending to {self._name}"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadline):
                taken = await loop.run_in_executor(_threads, _notify, self._url, subject, text)
        except TimeoutError:
            raise OutcomeUnknownError(
                doing, f"no answer within {deadline:g} s", "Ask whether it came"
            ) from None
        except Exception as error:  # noqa: BLE001 - a plug-in of the library may raise anything
            # The library's words may have the URL in them: only the kind of error is told.
            raise TemporaryError(doing, f"the service failed ({type(error).__name__})", _REMEDY) from None
        if taken is None:
            raise PermanentError(doing, "its URL is none that Apprise knows", _REMEDY)
        if not taken:
            raise TemporaryError(doing, "the service did not take it", _REMEDY)


def _notify(url: str, subject: str, text: str) -> bool | None:
    """Whether it was taken; None when the URL means nothing."""
    import apprise  # noqa: PLC0415 - it is large, and most commands send nothing

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    found = apprise.Apprise()
    if not found.add(url) or len(found) == 0:
        return None
    return bool(found.notify(body=text, title=subject, body_format=apprise.NotifyFormat.TEXT))
