"""The store across three sites, simulated: one record, one log, a leader's term. Linearizable while a majority is joined.

It keeps the contract of `hmsdr.log.store`: compare-and-swap and nothing more. Answers may be lost on the way back, so what
was asked for may have been done; after its leader is lost it is silent until an election is over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hmsdr.decide.authority import Authority, initial
from hmsdr.decide.testimony import Testimony
from hmsdr.sim.world import SILENCE, SITES, Call, Machine, World

LEADER_LEASE = 3.0
SHORTEST_ELECTION, LONGEST_ELECTION = 0.3, 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the log. ``basis`` is the last one that its writer had folded."""

    seq: int
    term: int
    writer: str
    kind: str
    basis: int


@dataclass(frozen=True, slots=True)
class Word:
    """What one site last said of both regions, and when the store took it."""

    testimonies: tuple[Testimony, ...]
    number: int


@dataclass
class Contents:
    """All that is stored."""

    authority: Authority
    log: list[Entry] = field(default_factory=list)
    term: int = 0
    leader: str = ""
    leader_until: float = 0.0
    words: dict[str, Word] = field(default_factory=dict)
    switchover: int = 0
    """The epoch from which somebody wants a planned switchover."""
    disaster: int = 0
    """The epoch whose holder's region somebody declared lost: taken away without asking the sites."""
    traffic: tuple[str, int] = ("", 0)
    """Where the public record leads: a site, and the epoch written beside it in a TXT record (rule 12)."""


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

    def ask(self, site: str, act: Callable[[Contents], Any], timeout: float, *, who: str = "") -> Call:
        """A linearizable request of `who` from `site`."""
        member = site if site in self._joined else next(iter(sorted(self._joined)), site)
        leader = self.leader
        if leader is not None and not {(site, leader), (leader, site)} & self.world.cut:
            member = leader  # a member hands on what it is asked: the way is that to the leader
        return Call(member, lambda: SILENCE if who in self.deaf else self._do(member, act), timeout)

    def at(self, site: str, act: Callable[[Contents], Any], *, who: str = "") -> Any:
        """What somebody at `site` would be answered right now; `SILENCE` when nobody does."""
        return SILENCE if who in self.deaf else self._do(site if site in self._joined else "", act)

    @property
    def available(self) -> bool:
        """Whether it would answer a member's question now."""
        return self.leader is not None

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
            self.leader = min(self._joined, key=lambda site: (self._draw.random(), site))
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

    def _do(self, member: str, act: Callable[[Contents], Any]) -> Any:
        if self.leader is None or member not in self._joined:
            return SILENCE
        return act(self.contents)


def swap(expected: Authority, new: Authority) -> Callable[[Contents], bool]:
    """Compare-and-swap of the authority record."""

    def act(contents: Contents) -> bool:
        if contents.authority != expected:
            return False
        contents.authority = new
        return True

    return act


def append(writer: str, kind: str, term: int, basis: int) -> Callable[[Contents], bool]:
    """Append an event if the head is still `basis` under `term` (rule 11)."""

    def act(contents: Contents) -> bool:
        if contents.term != term or len(contents.log) != basis:
            return False
        contents.log.append(Entry(len(contents.log) + 1, term, writer, kind, basis))
        return True

    return act


def campaign(who: str, now: Callable[[], float]) -> Callable[[Contents], int]:
    """Lead, or go on leading, as long as the store's own clock says; gives the term, 0 when somebody else leads."""

    def act(contents: Contents) -> int:
        if contents.leader != who:
            if contents.leader and now() < contents.leader_until:
                return 0
            contents.leader = who
            contents.term += 1
        contents.leader_until = now() + LEADER_LEASE
        return contents.term

    return act


def move_traffic(seen: tuple[str, int], to: str, epoch: int) -> Callable[[Contents], bool]:
    """Change the public record in one batch: delete exactly what was seen, TXT with its epoch too, and create the new."""

    def act(contents: Contents) -> bool:
        if contents.traffic != seen:
            return False
        contents.traffic = (to, epoch)
        return True

    return act
