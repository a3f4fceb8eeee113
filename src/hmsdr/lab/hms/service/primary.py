"""Which of a service's databases takes writes: all candidates are watched beside each other, and none is waited for.

Each candidate has one connection of its own. While a primary is known it is lent to whoever has a statement, and listened to
otherwise, so that a server's end is noticed at once; while there is none a standby is asked to answer the moment it takes writes, and others are tried again and again. A server
is the primary when it is not in recovery and the newest epoch that it knows is its own and no older than any seen here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg

from hmsdr.lab.hms.names import Names
from hmsdr.lab.hms.service.connecting import (
    CONNECT_SECONDS,
    Connection,
    DatabaseDownError,
    Target,
    ask,
    connect,
    judge,
    why_not,
)
from hmsdr.lab.hms.service.looking import LOOK, Place, Seen, refusal, waiting
from hmsdr.lab.layout import Endpoint

_LOOK_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE, _CALM_PAUSE = 0.03, 0.25, 2.0
"""A server that is stopping makes a process for each that calls, and waits for it: where a standby may take over it is left alone for
the longest pause first."""
_WANTED_SECONDS = 2.0
_EAGER, _PATIENT = (0.24, 0.003), (0.9, 0.04)
"""How long a standby is asked to wait for its promotion, and how often it looks meanwhile: while somebody waits for it, and in a
region where nobody does."""

_TURN_SECONDS = (0.1, 0.4)


class Primary:
    """Finds the primary among `target`'s endpoints, and finds it again whenever it is lost.

    Args:
        target: whom to ask.
        names: resolver.
        note: told about changes worth a line in the log.
    """

    def __init__(self, target: Target, names: Names, note: Callable[[str], None]) -> None:
        self.target = target
        self.names = names
        self.epoch = 0
        """The newest that any server showed: who shows an older one was the primary once."""
        self._note = note
        self._said = ""
        self._place: Place | None = None
        self._known = asyncio.Event()
        self._generation = 0
        self.address: str | None = None
        """Where the last primary was found."""
        self._watchers = [Watcher(self, endpoint) for endpoint in target.endpoints]
        self._wanted = 0.0
        self._asked_for = asyncio.Event()
        self._when_lost: list[Callable[[], None]] = []

    def when_lost(self, call: Callable[[], None]) -> None:
        """Call this whenever the primary is lost."""
        self._when_lost.append(call)

    async def watch(self) -> None:
        """Watch all candidates until cancelled; one that stops being watched by an error ends it all with that."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for watcher in self._watchers:
                    tasks.create_task(watcher.run())
        finally:
            for watcher in self._watchers:
                watcher.hang_up()

    async def first_look(self, *, patience: float) -> None:
        """Returns when there is a primary, or each candidate has said no, or after `patience` seconds."""
        known: asyncio.Future[Any] = asyncio.create_task(self._known.wait())
        looked: asyncio.Future[Any] = asyncio.gather(*(each.looked.wait() for each in self._watchers))
        try:
            await asyncio.wait({known, looked}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (known, looked):
                each.cancel()
            await asyncio.gather(known, looked, return_exceptions=True)

    @property
    def known(self) -> Place | None:
        """The primary, if one is known now."""
        return self._place

    @property
    def wanted(self) -> bool:
        """Whether somebody has waited for a primary, or was content with one, just now."""
        return time.monotonic() - self._wanted < _WANTED_SECONDS

    async def take_turns(self) -> None:
        """After a loss: at once when somebody waits, or just did; else at a random moment, or when somebody asks.

        Those whom nobody asks would take the processor from the switchover that others wait for.
        """
        if self._place is None and not self.wanted:
            with suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(*_TURN_SECONDS)):  # noqa: S311 - spreads the herd
                    await self._asked_for.wait()

    def others_stand_by(self, watcher: Watcher) -> bool:
        """Whether another candidate than `watcher`'s is a standby."""
        return any(
            each is not watcher and each.seen is not None and each.seen.standby for each in self._watchers
        )

    def lend(self, place: Place) -> tuple[Connection, Watcher] | None:
        """The connection that watches `place`, unless it is in use; it must be taken back."""
        for watcher in self._watchers:
            if (connection := watcher.lend(place)) is not None:
                return connection, watcher
        return None

    async def place(self, until: float, *, wanted: bool = True) -> Place:
        """The primary; waits for one until `until` (the loop's clock). `wanted`: for work that cannot be done without.

        Raises:
            DatabaseDownError: there is none; says what each candidate is instead.
        """
        if wanted:
            self._wanted = time.monotonic()
        if self._place is None:
            self._asked_for.set()
        try:
            async with asyncio.timeout_at(until):
                while (place := self._place) is None:
                    await self._known.wait()
                return place
        except TimeoutError:
            raise self.down() from None

    def down(self) -> DatabaseDownError:
        """Why there is no primary."""
        reasons = [(each.endpoint, each.found) for each in self._watchers]
        if len(reasons) == 1:
            return reasons[0][1]
        found = "; ".join(f"{endpoint}: {reason.found}" for endpoint, reason in reasons)
        kinds = {reason.kind for _, reason in reasons}
        return DatabaseDownError(kinds.pop() if len(kinds) == 1 else "no_primary", found)

    def standby(self) -> Seen | None:
        """What the first candidate that is a standby said of itself; None when none does."""
        found = (each.seen for each in self._watchers)
        return next((seen for seen in found if seen is not None and seen.standby), None)

    def lost(self, place: Place, why: str) -> None:
        """`place` does not take writes (any more): look again, all of them at once."""
        if place != self._place:
            return
        self._place = None
        self._known.clear()
        self.say(f"database {place.endpoint}: {why}")
        for call in self._when_lost:
            call()
        for watcher in self._watchers:
            watcher.stirred.set()

    def found(self, endpoint: Endpoint, address: str, seen: Seen) -> Place | None:
        """A server that takes writes; gives its place when it is the primary now."""
        epoch = seen.epoch or 0
        self.epoch = max(self.epoch, epoch)
        if self._place is not None and self._place.epoch < epoch:
            self.lost(self._place, f"{seen.instance} takes writes under the newer epoch {epoch}")
        if self._place is None:
            self._generation += 1
            self._place = Place(endpoint, address, epoch, self._generation)
            self.address = address
            self.say(f"database {endpoint}: {seen.instance} takes writes under epoch {seen.epoch}")
            self._known.set()
            self._asked_for.clear()
        return self._place if self._place.endpoint == endpoint else None

    def say(self, text: str) -> None:
        """A line in the log, once for each change."""
        if text != self._said:
            self._said = text
            self._note(text)


class Watcher:
    """One candidate and its connection, which one at a time may use."""

    def __init__(self, primary: Primary, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.seen: Seen | None = None
        self.found = DatabaseDownError("connect", "not asked yet")
        self.looked = asyncio.Event()
        self.stirred = asyncio.Event()
        self._primary = primary
        self._connection: Connection | None = None
        self._address = ""
        self._place: Place | None = None
        self._unclaimed: float | None = None
        self._free = asyncio.Event()
        self._free.set()
        self._listening = False

    async def run(self) -> None:
        """Watch it until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            self.stirred.clear()
            try:
                if await self._look():
                    await self._listen()
                    await self._primary.take_turns()
                else:
                    await self._wait()
                pause = _FIRST_PAUSE
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._failed(error)
                self.stirred.clear()  # by its own loss: this one has just been asked
                calm = self._primary.known is not None or not self._primary.wanted
                longest = _CALM_PAUSE if calm else _LONGEST_PAUSE
                if self._primary.others_stand_by(self):
                    pause = max(pause, _LONGEST_PAUSE)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause * random.uniform(0.8, 1.2)):  # noqa: S311 - spreads the herd
                        await self.stirred.wait()
                pause = min(2 * pause, longest)

    def hang_up(self) -> None:
        """Close the connection; nothing listens to it any more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if not connection.closed:
                asyncio.get_running_loop().remove_reader(connection.fileno())
            connection.pgconn.finish()

    def lend(self, place: Place) -> Connection | None:
        """The connection, if it leads to `place` and nobody uses it: to be given back by `take_back`."""
        connection = self._connection
        usable = self._listening and self._free.is_set() and self._place == place
        if connection is None or connection.closed or not usable:
            return None
        self._free.clear()
        asyncio.get_running_loop().remove_reader(connection.fileno())
        return connection

    def take_back(self) -> None:
        """The one who had the connection is done with it, or has closed it."""
        self._free.set()
        connection = self._connection
        if connection is None or connection.closed:
            self.stirred.set()
        elif self._listening:
            asyncio.get_running_loop().add_reader(connection.fileno(), self.stirred.set)

    async def _look(self) -> bool:
        """Ask what it is now; whether only listening is left to do: it is the primary, or another one is."""
        if self._connection is not None and self._connection.closed:
            self.hang_up()
        if self._connection is None:
            self._connection, self._address = await connect(
                self._primary.target,
                self.endpoint,
                self._primary.names,
                purpose="/watch",
                deadline=CONNECT_SECONDS,
            )
        seen = self.seen = Seen(*(await ask(self._connection, LOOK, (), _LOOK_SECONDS))[0])
        refusal = self._refusal(seen)
        if refusal is None:
            self._place = self._primary.found(self.endpoint, self._address, seen)
            self.found = DatabaseDownError("lost", "it took writes a moment ago")
        else:
            self.found = refusal
            self._not_primary(refusal.found)
        self.looked.set()
        return self._primary.known is not None

    def _refusal(self, seen: Seen) -> DatabaseDownError | None:
        """Why it is not the primary."""
        now = time.monotonic()
        if seen.standby or seen.claimed:
            self._unclaimed = None
        elif self._unclaimed is None:
            self._unclaimed = now
        without = 0.0 if self._unclaimed is None else now - self._unclaimed
        return refusal(seen, newest=self._primary.epoch, without_epoch=without)

    async def _listen(self) -> None:
        """Until it says something unasked (mostly: that it ends), or all are to look again."""
        connection = self._connection
        if connection is None:
            return
        loop, number = asyncio.get_running_loop(), connection.fileno()
        self._listening = True
        loop.add_reader(number, self.stirred.set)
        try:
            await self.stirred.wait()
        finally:
            self._listening = False
            if self._free.is_set():  # else it is not ours to stop
                loop.remove_reader(number)
        await self._free.wait()  # who has it has a deadline

    async def _wait(self) -> None:
        """There is no primary, and this is none yet: until it is, or it is time to look again."""
        if self._connection is None:
            return
        if self.found.kind not in ("read_only", "no_epoch"):
            await asyncio.sleep(_LONGEST_PAUSE)
            return
        began = time.monotonic()
        seconds, step = _EAGER if self._primary.wanted else _PATIENT
        await ask(self._connection, waiting(seconds, step), (), seconds + _LOOK_SECONDS)
        if time.monotonic() - began < step:  # read-only by a setting: it left recovery long ago
            await asyncio.sleep(_LONGEST_PAUSE)

    def _failed(self, error: BaseException) -> None:
        connection = self._connection
        broken = connection is None or connection.closed
        self.hang_up()
        self.seen = None
        self._primary.names.forget(self.endpoint.host)
        if connection is not None and isinstance(error, psycopg.Error):
            self.found = judge(error, broken=broken).down
        else:
            self.found = why_not(error)
        self._not_primary(self.found.found)
        self.looked.set()

    def _not_primary(self, why: str) -> None:
        place, self._place = self._place, None
        if place is not None:
            self._primary.lost(place, why)


def candidates(first: Endpoint, others: Sequence[str]) -> tuple[Endpoint, ...]:
    """All hosts that may have the primary, each once, `first` first; they share its port."""
    return tuple(dict.fromkeys([first, *(Endpoint(host, first.port) for host in others)]))
