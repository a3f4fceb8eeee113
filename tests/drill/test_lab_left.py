"""A drill that ended midway and keeps its lab leaves nothing broken in it: a supervisor that only tells stands for the lab's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hmsdr.drill.practice import Narrator, leave_whole
from hmsdr.lab.client import control_name, lab_id
from hmsdr.lab.layout import Layout

BROKEN = {"fault": "database-killed", "region": "us-east-1", "service": None, "at": 0.0, "held": False}


@dataclass(slots=True)
class Told:
    """What the supervisor says, and what was asked of it."""

    layout: Layout
    faults: list[dict[str, Any]]
    problem: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, do: str) -> dict[str, Any]:
        self.asked.append(do)
        if do == "status":
            return {"faults": self.faults}
        if self.problem:
            error = {"doing": "healing", "found": self.problem, "remedy": "See its log", "refused": False}
            return {"error": error}
        return {"regions": {}}


@asynccontextmanager
async def supervisor(told: Told) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        writer.write(json.dumps(told.answer(request["do"])).encode() + b"\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, control_name(told.layout.lab_id))
    async with server:
        yield


def lab(place: Path, *faults: dict[str, Any], problem: str = "") -> Told:
    layout = cast("Layout", SimpleNamespace(lab_id=lab_id(place), directory=place))
    return Told(layout, list(faults), problem)


@pytest.mark.req("TV-5")
async def test_what_is_broken_is_started_again(tmp_path: Path) -> None:
    told, said = lab(tmp_path, BROKEN), list[str]()
    async with supervisor(told):
        await leave_whole(told.layout, Narrator(said.append))
    assert told.asked == ["status", "heal"]
    assert len(said) == 1


@pytest.mark.req("TV-5")
async def test_a_lab_that_is_whole_or_gone_is_left_alone(tmp_path: Path) -> None:
    told = lab(tmp_path)
    async with supervisor(told):
        await leave_whole(told.layout, Narrator())
    assert told.asked == ["status"]
    await leave_whole(told.layout, Narrator())  # nobody there any more
    assert told.asked == ["status"]


@pytest.mark.req("TV-5")
async def test_a_lab_that_does_not_heal_is_told_of_and_hides_no_error_of_the_drill(tmp_path: Path) -> None:
    told, said = lab(tmp_path, BROKEN, problem="Redis does not listen"), list[str]()
    async with supervisor(told):
        await leave_whole(told.layout, Narrator(said.append))
    assert "Redis does not listen" in said[-1]
