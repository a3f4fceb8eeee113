"""The store across three sites, simulated: the log, the authority record, the controllers' council. Linearizable while a majority is joined.

It keeps the contract of `hmsdr.log.store` and nothing more: compare-and-swap. Answers may be lost on the way back, so what
was asked for may have been done; after its leader is lost it is silent until an election is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hmsdr.decide.authority import Authority, Phase, initial
from hmsdr.decide.leadership import Leadership, taken
from hmsdr.log.events import GENESIS, Event, Head, NewEvent, after, chain
from hmsdr.log.sqlite import SqliteStore
from hmsdr.log.store import Appended, HeadMovedError, Sitting, StoreError, TermOverError
from hmsdr.sim.edges import THEN
from hmsdr.sim.loop import Life
from hmsdr.sim.process import asked
from hmsdr.sim.world import SILENCE, SITES, Machine, World

_ANSWER_SECONDS = 1.0
SHORTEST_ELECTION, LONGEST_ELECTION = 0.3, 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the log. ``basis`` is the last one that its writer had folded."""

    event: Event
    basis: int


@dataclass
class Contents:
    """All that is stored."""

    authority: Authority
    log: list[Entry] = field(default_factory=list)
    leadership: Leadership = field(default_factory=Leadership)
    words: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    told: Callable[[Event], None] = lambda _: None
    """Told of each event that is appended."""
    revoked: Callable[[], None] = lambda: None
    """Told when the right to write is being taken away."""

    @property
    def head(self) -> Head:
        """The end of the log."""
        last = self.log[-1].event if self.log else None
        return Head(
            0 if last is None else last.seq, self.leadership.term, GENESIS if last is None else last.hash
        )


Act = Callable[[Contents], Any]
"""A request: gives the answer, or an error that the asker raises."""


class Store:
    """Three members, one per site, and what they agree on."""

    def __init__(self, world: World, machines: dict[str, Machine], lease_seconds: float) -> None:
        self.world = world
        self.contents = Contents(initial(lease_seconds))
        self.up = dict.fromkeys(SITES, True)
        self.leader: str | None = world.wires.choice(SITES)
        self.elections = 0
        self.deaf: set[str] = set()
        """Processes that it does not answer: their certificate ran out, say."""
        self._machines = machines
        self._joined: frozenset[str] = frozenset(SITES)
        self._draw = world.wires
        world.changed.append(self.look)

    def way(self, site: str) -> str:
        """The member that somebody at `site` asks."""
        leader = self.leader
        if leader is not None and not {(site, leader), (leader, site)} & self.world.cut:
            return leader  # a member hands on what it is asked: the way is that to the leader
        return site if site in self._joined else next(iter(sorted(self._joined)), site)

    def answer(self, member: str, act: Act, who: str) -> Any:
        """What `member` answers `who` now; `SILENCE` when it does not."""
        if self.leader is None or member not in self._joined or who in self.deaf:
            return SILENCE
        return act(self.contents)

    def at(self, site: str, act: Act, *, who: str = "") -> Any:
        """What somebody at `site` would be answered right now."""
        return self.answer(site if site in self._joined else "", act, who)

    def set_member(self, site: str, up: bool) -> None:
        """A member dies or comes back; what it had stored is still there."""
        self.up[site] = up
        self.world.say("store", f"member {site} {'up' if up else 'down'}")
        self.look()

    def look(self) -> None:
        """Wires, machines or members changed: is the leader still joined to a majority?"""
        joined = self._majority()
        self._joined = joined
        if self.leader is not None and self.leader not in joined:
            self.leader = None
        if self.leader is None and joined:
            self.elections += 1
            spread = LONGEST_ELECTION - SHORTEST_ELECTION
            when = self.world.now + SHORTEST_ELECTION + self._draw.random() * spread
            self.world.at(when, self._elected, self.elections)

    def _elected(self, election: int) -> None:
        if election == self.elections and self.leader is None and self._joined:
            self.leader = min(sorted(self._joined), key=lambda site: (self._draw.random(), site))
            self.world.say("store", f"{self.leader} leads")

    def _majority(self) -> frozenset[str]:
        alive = [site for site in SITES if self.up[site] and self._machines[site].up]
        joined = {
            site: {
                other
                for other in alive
                if other == site
                or ((site, other) not in self.world.cut and (other, site) not in self.world.cut)
            }
            for site in alive
        }
        best = max(joined.values(), key=len, default=set())
        return frozenset(best) if len(best) > len(SITES) // 2 else frozenset()


class StorePort:
    """The store as the real code of one process sees it: `hmsdr.log.store.Store`."""

    def __init__(self, store: Store, loop: Life) -> None:
        self._store, self._loop = store, loop

    async def close(self) -> None:
        """There are no connections."""

    async def read_authority(self) -> Authority:
        """A linearizable read."""
        record: Authority = await self._asked("reading the authority", lambda contents: contents.authority)
        return record

    async def swap_authority(self, expected: Authority, new: Authority) -> bool:
        """Compare-and-swap."""
        return bool(await self._asked("changing the authority", swap(expected, new)))

    async def head(self) -> Head:
        """The end of the log."""
        head: Head = await self._asked("reading the log's head", lambda contents: contents.head)
        return head

    async def read(self, after: int = 0, *, subject: str | None = None) -> list[Event]:
        """Events above `after`."""

        def act(contents: Contents) -> list[Event]:
            found = [entry.event for entry in contents.log[after:]]
            return [event for event in found if subject is None or event.subject == subject]

        events: list[Event] = await self._asked("reading the log", act)
        return events

    async def append(self, events: Sequence[NewEvent], *, expected: Head) -> Appended:
        """Compare-and-swap on the head."""
        appended: Appended = await self._asked("appending to the log", append(events, expected))
        return appended

    async def begin_term(self, leader: str) -> Head:
        """A new term."""

        def act(contents: Contents) -> Head:
            contents.leadership = taken(contents.leadership, leader)
            return contents.head

        head: Head = await self._asked("beginning a term", act)
        return head

    async def meet(self, site: str, word: Mapping[str, Any]) -> Sitting:
        """Read everything, put our word."""

        def act(contents: Contents) -> Sitting:
            seen = Sitting(contents.head, contents.leadership, contents.authority, dict(contents.words))
            contents.words[site] = word
            return seen

        sitting: Sitting = await self._asked("meeting", act)
        return sitting

    async def leadership(self) -> Leadership:
        """Who leads."""
        record: Leadership = await self._asked("asking who leads", lambda contents: contents.leadership)
        return record

    async def settle(self, expected: Leadership, new: Leadership) -> bool:
        """Compare-and-swap of who leads."""

        def act(contents: Contents) -> bool:
            if contents.leadership != expected:
                return False
            contents.leadership = new
            return True

        return bool(await self._asked("settling who leads", act))

    async def _asked(self, doing: str, act: Act) -> Any:
        store, process = self._store, self._loop.process
        member = store.way(process.machine.site)
        said = await asked(
            self._loop, member, lambda: store.answer(member, act, process.name), within=_ANSWER_SECONDS
        )
        if said is SILENCE:
            raise StoreError(doing, "no answer in time", "Try again")
        if isinstance(said, StoreError):
            raise said
        return said


class Copy(SqliteStore):
    """A controller's local copy of the log: what is in it outlives the process."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    async def read(self, after: int = 0, *, subject: str | None = None) -> list[Event]:
        """What is there."""
        return self._events[after:]

    async def head(self) -> Head:
        """Its end."""
        last = self._events[-1] if self._events else None
        return Head(0, 0, GENESIS) if last is None else Head(last.seq, last.term, last.hash)

    async def copy(self, events: Sequence[Event], leadership: Leadership, authority: Authority) -> None:
        """What follows; what is there already stays."""
        known = len(self._events)
        self._events.extend(event for event in events if event.seq > known)


def swap(expected: Authority, new: Authority) -> Act:
    """Compare-and-swap of the authority record."""

    def act(contents: Contents) -> bool:
        if contents.authority != expected:
            return False
        contents.authority = new
        if new.phase is Phase.REVOKING and expected.phase is Phase.HELD:
            contents.revoked()
        return True

    return act


def append(events: Sequence[NewEvent], expected: Head) -> Act:
    """Append if the log still ends as expected, under the same term (rule 11)."""

    def act(contents: Contents) -> Appended | StoreError:
        head = contents.head
        if head.term != expected.term:
            return TermOverError("appending", f"term {head.term} has begun", "Stop")
        if head != expected:
            return HeadMovedError("appending", f"the log already ends at {head.seq}", "Read on")
        return put(contents, events, expected.seq)

    return act


def put(contents: Contents, events: Sequence[NewEvent], basis: int) -> Appended:
    """Put events, that follow from everything up to `basis`, at the end."""
    head = contents.head
    stored = chain(events, head, THEN)
    contents.log.extend(
        Entry(event, basis + number if number else basis) for number, event in enumerate(stored)
    )
    for event in stored:
        contents.told(event)
    return Appended(after(head, stored), stored)
