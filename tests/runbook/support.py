"""A small world for runner tests: actions whose effects are lines in files, so that each application is counted.

Not a stand-in for an outside system: these actions are the subject of the tests, durable on disk, so that a
killed runner's effects can be counted afterwards by another process.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from hmsdr.drivers.errors import PermanentError, TemporaryError
from hmsdr.log.events import Event, Head, NewEvent
from hmsdr.log.sqlite import SqliteStore
from hmsdr.log.store import Appended
from hmsdr.playbook.base import Model
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.action import Action, Check, Manual, StepContext, UndoableAction
from hmsdr.runbook.catalogue import Catalogue
from hmsdr.runbook.plan import Plan
from hmsdr.runbook.systems import Systems


class TouchArgs(Model):
    """The file that is to exist."""

    path: str
    die: str | None = None
    """Kill the process ``before`` or ``after`` the effect, once (the marker file remembers); or ``fail`` after it."""


class Touch(UndoableAction[TouchArgs]):
    """Appends a line to a file: applied twice shows as two lines."""

    name: ClassVar[str] = "test.touch"
    summary: ClassVar[str] = "append a line"
    Args = TouchArgs

    async def check(self, context: StepContext, args: TouchArgs) -> Check:
        return Check(Path(args.path).exists(), {"path": Path(args.path).name})

    async def act(self, context: StepContext, args: TouchArgs) -> Mapping[str, Any]:
        self._die(args, "before")
        with Path(args.path).open("a") as file:
            file.write("applied\n")
        self._die(args, "after")
        if args.die == "fail":
            raise TemporaryError("touching", "the answer was lost", "Try again")
        return {"made": True}

    async def remember(self, context: StepContext, args: TouchArgs) -> Mapping[str, Any]:
        return {"there": Path(args.path).exists()}

    async def undo(self, context: StepContext, args: TouchArgs, before: Mapping[str, Any]) -> None:
        self._die(args, "undo")
        if before.get("there") is False:
            Path(args.path).unlink(missing_ok=True)

    @staticmethod
    def _die(args: TouchArgs, when: str) -> None:
        marker = Path(f"{args.path}.died")
        if args.die == when and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def manual(self, playbook: Playbook, args: TouchArgs) -> Manual:
        return Manual((f"echo applied >> {args.path}",), "", ())


class FailArgs(Model):
    """How to fail, and how often."""

    counter: str
    times: int = 1_000
    permanent: bool = False


class Fail(Action[FailArgs]):
    """Fails the first `times` times."""

    name: ClassVar[str] = "test.fail"
    summary: ClassVar[str] = "fail"
    Args = FailArgs

    async def check(self, context: StepContext, args: FailArgs) -> Check:
        return Check(False)

    async def act(self, context: StepContext, args: FailArgs) -> Mapping[str, Any]:
        path = Path(args.counter)
        tried = len(path.read_text()) if path.exists() else 0
        path.write_text("x" * (tried + 1))
        if tried < args.times:
            kind = PermanentError if args.permanent else TemporaryError
            raise kind("testing", "it failed as told", "Nothing to do")
        return {}

    async def verify(self, context: StepContext, args: FailArgs) -> Check:
        return Check(True)

    def manual(self, playbook: Playbook, args: FailArgs) -> Manual:
        return Manual(("false",), "", ())


class SleepArgs(Model):
    """How long; with `proof`, that is waited for afterwards, in vain."""

    seconds: float
    proof: str | None = None


class Sleep(Action[SleepArgs]):
    """Takes a while."""

    name: ClassVar[str] = "test.sleep"
    summary: ClassVar[str] = "sleep"
    Args = SleepArgs

    async def check(self, context: StepContext, args: SleepArgs) -> Check:
        return Check(False)

    async def act(self, context: StepContext, args: SleepArgs) -> Mapping[str, Any]:
        await asyncio.sleep(args.seconds)
        return {}

    async def verify(self, context: StepContext, args: SleepArgs) -> Check:
        return Check(args.proof is None, {}, args.proof)

    def manual(self, playbook: Playbook, args: SleepArgs) -> Manual:
        return Manual((f"sleep {args.seconds}",), "", ())


class Once(Touch):
    """Finds out by itself whether it was done; who asks it first has lost time."""

    name: ClassVar[str] = "test.once"
    asks_itself: ClassVar[bool] = True

    async def check(self, context: StepContext, args: TouchArgs) -> Check:
        self._note(args, "check")
        return await super().check(context, args)

    async def act(self, context: StepContext, args: TouchArgs) -> Mapping[str, Any]:
        self._note(args, "act")
        if Path(args.path).exists():
            return {"already": True}
        return {**await super().act(context, args), "already": False}

    @staticmethod
    def _note(args: TouchArgs, word: str) -> None:
        with Path(f"{args.path}.order").open("a") as order:
            order.write(f"{word}\n")


CATALOGUE = Catalogue([Touch(), Once(), Fail(), Sleep()])
NO_SYSTEMS = cast("Systems", None)
"""The actions above use no outside system."""


def step(key: str, action: str, arguments: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A planned step with small defaults."""
    return {
        "key": key,
        "title": key,
        "action": action,
        "arguments": dict(arguments),
        "deadline": "60s",
        "attempts": 1,
        "backoff": "1ms",
        "on_failure": "stop",
        **more,
    }


def plan(stages: Sequence[tuple[str, Sequence[str], Sequence[Sequence[dict[str, Any]]]]]) -> Plan:
    """A plan of (name, after, groups)."""
    return Plan.model_validate(
        {
            "runbook": "test", "title": "test", "mode": "planned", "parameters": {}, "epoch": 0,
            "playbook": "test", "playbook_hash": "0", "rollback": None,
            "stages": [
                {"name": name, "title": name, "after": list(after), "groups": [list(group) for group in groups]}
                for name, after, groups in stages
            ],
        }
    )  # fmt: skip


class CrashingLog:
    """The real store, whose process is killed before or after the n-th append."""

    def __init__(self, store: SqliteStore, crash_at: int, *, before: bool) -> None:
        self._store = store
        self._left = crash_at
        self._before = before

    async def head(self) -> Head:
        return await self._store.head()

    async def read(self, after: int = 0, *, subject: str | None = None) -> list[Event]:
        return await self._store.read(after, subject=subject)

    async def begin_term(self, leader: str) -> Head:
        return await self._store.begin_term(leader)

    async def append(self, events: Sequence[NewEvent], *, expected: Head) -> Appended:
        self._left -= 1
        if self._left == 0 and self._before:
            os.kill(os.getpid(), signal.SIGKILL)
        head = await self._store.append(events, expected=expected)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return head
