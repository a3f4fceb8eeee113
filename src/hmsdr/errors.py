"""The errors of the product: every one says what was being done, to what, what was found, what to do next.

The lowest room: imported by all, imports none. Faces turn these into text and an exit status; nothing
else does, and no traceback reaches a user.
"""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    FAILED = 1
    REFUSED = 2


class HmsdrError(Exception):
    """Base of all errors that a user may see.

    Args:
        doing: what was being done, to what ("promoting PostgreSQL in us-west-2").
        found: what was observed instead of what was expected.
        remedy: what the reader can do next.
    """

    status = ExitStatus.FAILED

    def __init__(self, doing: str, found: str, remedy: str) -> None:
        super().__init__(doing, found, remedy)
        self.doing = doing
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.doing}: {self.found}. {self.remedy}"


class RefusedError(HmsdrError):
    """The request is invalid or not allowed now; nothing was changed."""

    status = ExitStatus.REFUSED


class FailedError(HmsdrError):
    """The request was tried and did not succeed."""
