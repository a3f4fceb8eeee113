"""Talking to a lab's supervisor: one JSON line there, one back. Starts nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from hmsdr.errors import FailedError, RefusedError
from hmsdr.lab.layout import Layout

LINE_LIMIT = 1 << 20
PING_SECONDS = 2.0


def lab_id(directory: Path) -> str:
    """The mark of a lab in `directory`: always the same, so that a later `up` finds an earlier one's leftovers."""
    return "lab-" + hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]


def control_name(mark: str) -> str:
    """The supervisor's socket."""
    # An abstract name: no length limit that a deep directory could hit, and gone with its last holder.
    return f"\0hmsdr-lab-control/{mark}"


async def say(mark: str, request: dict[str, Any], *, deadline: float = PING_SECONDS) -> dict[str, Any]:
    """The answer of the supervisor under `mark`, as it stands there, within `deadline` seconds.

    Raises:
        OSError: there is none.
        TimeoutError: it does not answer.
        ValueError: it hung up.
    """
    async with asyncio.timeout(deadline):
        reader, writer = await asyncio.open_unix_connection(control_name(mark), limit=LINE_LIMIT)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            line = await reader.readline()
        finally:
            writer.close()
    answer: dict[str, Any] = json.loads(line)
    return answer


async def alive(mark: str) -> bool:
    """Whether a supervisor answers under `mark`."""
    try:
        await say(mark, {"do": "ping"})
    except (OSError, TimeoutError, ValueError):
        return False
    return True


@contextlib.asynccontextmanager
async def attached(layout: Layout) -> AsyncIterator[None]:
    """While this is entered the lab ends with this process, however that dies.

    Raises:
        FailedError: the lab's supervisor does not answer.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PING_SECONDS):
            reader, writer = await asyncio.open_unix_connection(control_name(layout.lab_id), limit=LINE_LIMIT)
            writer.write(json.dumps({"do": "attach"}).encode() + b"\n")
            await reader.readline()
    except (OSError, TimeoutError, ValueError) as error:
        if writer is not None:
            writer.close()
        raise FailedError(
            f"asking the lab in {layout.directory}", "its supervisor does not answer", "Try again"
        ) from error
    try:
        yield
    finally:
        writer.write(b".")  # it goes on without us
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()


async def ask(layout: Layout, request: dict[str, Any], *, deadline: float) -> dict[str, Any]:
    """The supervisor's answer within `deadline` seconds.

    Raises:
        RefusedError: there is no supervisor, or it refuses.
        FailedError: no answer, or it failed.
    """
    doing = f"asking the lab in {layout.directory}"
    try:
        message = await say(layout.lab_id, request, deadline=deadline)
    except TimeoutError as error:
        raise FailedError(doing, f"no answer after {deadline:g} s", "Look at `hmsdr lab status`") from error
    except OSError as error:
        raise RefusedError(
            doing, "its supervisor does not run", "`hmsdr lab down`, then `hmsdr lab up`"
        ) from error
    except ValueError as error:
        raise FailedError(doing, "it hung up", "Look at `hmsdr lab status`") from error
    raise_problem(message)
    return message


def raise_problem(message: dict[str, Any]) -> None:
    """Raise the error that a supervisor's line tells of, if it does."""
    if "interrupted" in message:
        raise FailedError("bringing the lab up", "it was interrupted", "Nothing is left running; try again")
    if (error := message.get("error")) is not None:
        kind = RefusedError if error["refused"] else FailedError
        raise kind(error["doing"], error["found"], error["remedy"])
