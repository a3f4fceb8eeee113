"""Appending for those who do not lead: facts and answers of people, put at the end of the log wherever that is now.

It takes part in no term: a runner's own events go through its journal. It never overwrites and never reorders.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from hmsdr.log.events import NewEvent
from hmsdr.log.store import EventLog, HeadMovedError, TermOverError

_TRIES = 20


async def append_after(
    log: EventLog, make: Callable[[], Awaitable[Sequence[NewEvent]]], *, doing: str
) -> None:
    """Append what `make` gives; when somebody was faster, ask `make` again.

    Args:
        log: where.
        make: gives the events; may raise when they are no longer allowed.
        doing: for the error's text.

    Raises:
        StoreError: not stored, or others were faster every time.
    """
    for _ in range(_TRIES):
        head = await log.head()
        try:
            # After the head: what is appended later than that makes the append fail, not slip through.
            await log.append(await make(), expected=head)
        except (HeadMovedError, TermOverError):
            # Also when a runner began a term in between: that is its right to act, not ours to speak.
            continue
        return
    raise HeadMovedError(doing, f"others appended first {_TRIES} times in a row", "Try again")
