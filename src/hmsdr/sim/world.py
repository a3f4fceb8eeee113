"""Virtual time, machines and wires: a world in which only the seed decides what happens when.

One heap of moments; processes are generators that yield `Sleep` or `Call`. Each machine's clock has an offset and a rate
of its own. Nothing here knows of hospitals, and nothing here touches the real clock, network or disk.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

EAST, WEST, WITNESS = "east", "west", "witness"
SITES = (EAST, WEST, WITNESS)
LEAST_DELAY, MOST_DELAY = 0.002, 0.06
"""Of a message over a wire that is well, in seconds."""

LATEST = 25.0
"""Of a request that arrives a second time, in seconds after the first."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Go on after ``seconds`` of the process's own clock."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Call:
    """Ask `site`, give up after ``timeout`` seconds of the own clock.

    ``handle`` runs over there, when the request arrives; it gives the answer, or `SILENCE` when nobody answers.
    ``to`` is the process that answers: a request to one that is paused waits for it.
    """

    site: str
    handle: Callable[[], Any]
    timeout: float
    to: Process | None = None


class _Silence:
    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "no answer"


SILENCE = _Silence()
"""What a call gives that was not answered in time. What it asked for may have been done nevertheless."""

Script = Generator[Sleep | Call, Any, Any]


class World:
    """Time, wires and the story so far.

    Args:
        seed: everything follows from it.
        tell: keep a readable history.
    """

    def __init__(self, seed: int, *, tell: bool = False) -> None:
        self.seed = seed
        self.now = 0.0
        self.wires = random.Random(f"{seed}/wires")
        self.loss = 0.0
        """Part of all messages between sites that are lost."""
        self.duplicates = 0.0
        """Part of all requests between sites that arrive twice, the second time late."""
        self.delay = 1.0
        """Factor on all delays between sites."""
        self.cut: set[tuple[str, str]] = set()
        """Wires that are cut, as (from, to): one way each."""
        self.changed: list[Callable[[], None]] = []
        """Told when a wire is cut or healed, or a machine comes or goes."""
        self.history: list[str] | None = [] if tell else None
        self.events = 0
        self.broken: list[BaseException] = []
        """Errors of the real code that nobody expected: such a world is unknown, never well."""
        self.processes: list[Process] = []
        """Whose program is real code."""
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: float, act: Callable[..., None], *arguments: Any) -> None:
        """Let `act` happen at `when`, world time."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, act, arguments))

    def run(self, until: float) -> None:
        """Let happen whatever happens until then."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, act, arguments = heapq.heappop(heap)
            self.events += 1
            act(*arguments)
            if self.broken:
                raise self.broken[0]
        self.now = until

    def end(self) -> None:
        """Clear away whatever still runs."""
        for process in self.processes:
            process.kill()

    def say(self, who: str, what: str) -> None:
        """A line of the history, when one is kept."""
        if self.history is not None:
            self.history.append(f"{self.now:9.3f}  {who:<16} {what}")

    def cut_wires(self, wires: set[tuple[str, str]]) -> None:
        """Exactly these are cut from now on."""
        if wires != self.cut:
            self.cut = set(wires)
            self.say("network", ", ".join(f"{a}-/->{b}" for a, b in sorted(wires)) or "whole again")
            self.notify()

    def notify(self) -> None:
        """Tell those who watch that wires or machines changed."""
        for told in self.changed:
            told()

    def transit(self, source: str, target: str) -> float | None:
        """How long a message takes that is sent now; None when it never arrives."""
        draw = self.wires.random()
        if source == target:
            return LEAST_DELAY * (0.2 + draw)
        if (source, target) in self.cut or (self.loss and self.wires.random() < self.loss):
            return None
        return (LEAST_DELAY + draw * draw * MOST_DELAY) * self.delay


class Machine:
    """A site's machine: its clock, and whether it runs. What is on its disk stays where its owner keeps it."""

    def __init__(self, world: World, site: str, rate: float, offset: float) -> None:
        self.world = world
        self.site = site
        self.rate = rate
        self.up = True
        self.boots = 1
        self._began = 0.0
        self._offset = offset

    def clock(self) -> float:
        """Boot-time seconds: never jumps, counts pauses, begins anew with each boot."""
        return self._offset + (self.world.now - self._began) * self.rate

    def boot(self) -> None:
        """Start again, with a clock that begins at nought."""
        self.up, self.boots = True, self.boots + 1
        self._began, self._offset = self.world.now, 0.0

    @property
    def boot_id(self) -> str:
        """Name of this boot."""
        return f"{self.site}#{self.boots}"


class Process:
    """A process on a machine: lives, dies, is paused, and forgets what it does not write down."""

    def __init__(self, world: World, machine: Machine, name: str) -> None:
        self.world = world
        self.machine = machine
        self.name = name
        self.alive = False
        self.paused = False
        self.life = 0
        self._late: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def start(self) -> None:
        """Begin a new life, unless the machine is down or a life goes on."""
        if self.alive or not self.machine.up:
            return
        self.alive, self.paused = True, False
        self.life += 1
        self._late.clear()
        self.begin()

    def begin(self) -> None:
        """What a new life does first."""

    def kill(self) -> None:
        """SIGKILL."""
        self.alive = self.paused = False
        self.life += 1
        self._late.clear()

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = self.alive

    def resume(self) -> None:
        """SIGCONT: what came meanwhile happens now, in order."""
        if not self.paused:
            return
        self.paused = False
        late, self._late = self._late, []
        for position, (act, arguments) in enumerate(late):
            if self.paused or not self.alive:
                self._late.extend(late[position:])
                return
            act(*arguments)

    def later(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        """Do `act` after `seconds` of our own clock, if this life lasts."""
        world = self.world
        world.at(world.now + seconds / self.machine.rate, self._mine, self.life, act, arguments)

    def _mine(self, life: int, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if life != self.life:
            return
        if self.paused:
            self._late.append((act, arguments))
        else:
            act(*arguments)

    def postpone(self, act: Callable[..., None], *arguments: Any) -> None:
        """Do it when we are resumed."""
        self._late.append((act, arguments))

    def wake(self, life: int, script: Script, value: Any) -> None:
        """Go on with a script of that life, with the answer it waits for."""
        self._mine(life, self._step, (script, value))

    def spawn(self, script: Script) -> None:
        """Let a script of ours run from now on."""
        self._step(script, None)

    def _step(self, script: Script, value: Any) -> None:
        try:
            wish = script.send(value)
        except StopIteration:
            return
        if type(wish) is Sleep:
            self.later(wish.seconds, self._step, script, None)
        else:
            assert isinstance(wish, Call)  # noqa: S101
            _Pending(self, script, wish)

    def say(self, what: str) -> None:
        """A line of the history."""
        if self.world.history is not None:
            self.world.say(self.name, what)


class _Pending:
    """One call on its way there and back."""

    __slots__ = ("call", "caller", "deadline", "life", "open", "script", "world")

    def __init__(self, caller: Process, script: Script, call: Call) -> None:
        self.caller, self.script, self.call = caller, script, call
        self.world = world = caller.world
        self.life = caller.life
        self.open = True
        self.deadline = world.now + call.timeout / caller.machine.rate
        here = caller.machine.site
        transit = world.transit(here, call.site)
        if transit is None:
            self._in_vain()
            return
        world.at(world.now + transit, self._arrive, True)
        if world.duplicates and here != call.site and world.wires.random() < world.duplicates:
            world.at(world.now + transit + LATEST * world.wires.random() ** 2, self._arrive, False)

    def _arrive(self, first: bool) -> None:
        to = self.call.to
        if to is not None and to.paused:
            to.postpone(self._handled, first)
            if first:
                self._in_vain()
            return
        self._handled(first)

    def _handled(self, first: bool) -> None:
        to = self.call.to
        value = self.call.handle() if to is None or to.alive else SILENCE
        if not first or not self.open:
            return
        back = None if value is SILENCE else self.world.transit(self.call.site, self.caller.machine.site)
        if back is None or self.world.now + back > self.deadline:
            self._in_vain()
        else:
            self.world.at(self.world.now + back, self._give, value)

    def _in_vain(self) -> None:
        """The caller gives up at its timeout. What it asked for may have been done nevertheless."""
        self.world.at(max(self.world.now, self.deadline), self._give, SILENCE)

    def _give(self, value: Any) -> None:
        if self.open:
            self.open = False
            self.caller.wake(self.life, self.script, value)
