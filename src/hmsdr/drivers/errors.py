"""What can go wrong at an outside system, in our words: temporary, permanent, or outcome unknown.

Every driver translates its vendor's errors into these at its edge, with the cause chained. The runner
retries the first, stops at the second, and asks `check` again after the third.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from hmsdr.errors import FailedError


class DriverError(FailedError):
    """An outside system did not do what it was asked."""


class TemporaryError(DriverError):
    """Not done, and trying again may help: refused connection, throttled, conflict, not ready.

    Args:
        after: the system asked for so many seconds of peace; None when it said nothing of that.
    """

    def __init__(self, doing: str, found: str, remedy: str, *, after: float | None = None) -> None:
        super().__init__(doing, found, remedy)
        self.after = after


class PermanentError(DriverError):
    """Not done, and trying again the same way cannot help: rejected, not found, not allowed."""


class OutcomeUnknownError(DriverError):
    """The request may or may not have taken effect: the answer was lost. Look before trying again."""


_LONGEST_WAIT = 3600.0


def asked_to_wait(header: str | None, now: datetime) -> float | None:
    """Seconds that ``Retry-After`` asks for: a number of them, or a date; at most an hour, None when it says nothing that is understood."""
    text = (header or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), _LONGEST_WAIT)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max(0.0, (until - now).total_seconds()), _LONGEST_WAIT)
