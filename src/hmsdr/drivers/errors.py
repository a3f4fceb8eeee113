"""What can go wrong at an outside system, in our words: temporary, permanent, or outcome unknown.

Every driver translates its vendor's errors into these at its edge, with the cause chained. The runner
retries the first, stops at the second, and asks `check` again after the third.
"""

from __future__ import annotations

from hmsdr.errors import FailedError


class DriverError(FailedError):
    """An outside system did not do what it was asked."""


class TemporaryError(DriverError):
    """Not done, and trying again may help: refused connection, throttled, conflict, not ready."""


class PermanentError(DriverError):
    """Not done, and trying again the same way cannot help: rejected, not found, not allowed."""


class OutcomeUnknownError(DriverError):
    """The request may or may not have taken effect: the answer was lost. Look before trying again."""
