"""The run's pen: appends its events under one term, and notices when somebody else appended or took over.

It keeps the head it knows, serialises the appends of parallel steps, and hands foreign events (approvals,
aborts) to the fold. It decides nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

from hmsdr.log.events import Event, Head, NewEvent
from hmsdr.log.store import EventLog, HeadMovedError, TermOverError
from hmsdr.runbook.state import RunState, apply, fold

_RETRIES_ON_FOREIGN_APPENDS = 50


class Journal:
    """Appends to and follows one run.

    Args:
        log: where.
        run: its name.
        on_change: told the fold after each event.
        term: the one to write under, of who leads already; None begins one.
    """

    def __init__(
        self,
        log: EventLog,
        run: str,
        on_change: Callable[[RunState], None] | None = None,
        term: int | None = None,
    ) -> None:
        self._term = term
        self._log = log
        self.run = run
        self._on_change = on_change
        self._head: Head | None = None
        self._state: RunState | None = None
        self._lock = asyncio.Lock()

    @property
    def state(self) -> RunState:
        """The run as of the last event known here."""
        if self._state is None:
            msg = f"run {self.run} has no events yet"
            raise LookupError(msg)
        return self._state

    async def begin(self) -> None:
        """Begin a term for this process (a runner before it is then refused) and read the run so far.

        Raises:
            TermOverError: the term that we were given is over.
        """
        async with self._lock:
            self._head = await self._begun()
            self._state = fold(await self._log.read(subject=self.run))

    async def _begun(self) -> Head:
        if self._term is None:
            return await self._log.begin_term(f"runner {socket.gethostname()}/{os.getpid()}")
        head = await self._log.head()
        if head.term != self._term:
            raise TermOverError(
                f"going on under term {self._term}", f"term {head.term} has begun", "Another one leads now"
            )
        return head

    async def write(self, kind: str, actor: str = "runner", **data: object) -> None:
        """Append one event about the run; returns when it is durable.

        Raises:
            TermOverError: another runner took over: stop acting.
            StoreError: not durable: stop acting.
        """
        async with self._lock:
            event = NewEvent(kind=kind, subject=self.run, actor=actor, data=data)
            for _ in range(_RETRIES_ON_FOREIGN_APPENDS):
                before = self._known_head()
                try:
                    appended = await self._log.append([event], expected=before)
                except HeadMovedError:
                    await self._catch_up()
                    continue
                self._head = appended.head
                self._take(appended.events)
                return
            raise HeadMovedError(
                f"appending {kind} to run {self.run}",
                f"others appended first {_RETRIES_ON_FOREIGN_APPENDS} times in a row",
                "Find out who writes to the log so fast, then `hmsdr run resume`",
            )

    async def follow(self) -> RunState:
        """Read what others appended, and give the state."""
        async with self._lock:
            await self._catch_up()
        return self.state

    def _known_head(self) -> Head:
        if self._head is None:
            msg = "begin() first"
            raise LookupError(msg)
        return self._head

    async def _catch_up(self) -> None:
        known = self._known_head()
        head = await self._log.head()
        if head.seq != known.seq:
            self._take(await self._log.read(known.seq, subject=self.run))
        # The own term is kept: if a newer one began, the next append is refused with it.
        self._head = Head(seq=head.seq, term=known.term, hash=head.hash)

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._state is None or event.seq > self._state.last_seq:
                self._state = apply(self._state, event)
        if events and self._on_change is not None and self._state is not None:
            self._on_change(self._state)
