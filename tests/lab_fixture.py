"""Whole labs for tests: one shared by all that leave it whole, and a fresh one for those that do not.

Every lab is checked at the end: no process, no directory left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from hmsdr.lab import control
from hmsdr.lab.layout import Layout
from hmsdr.lab.processes import lab_processes


async def _down(layout: Layout) -> None:
    await control.down(layout)
    assert not lab_processes(layout.lab_id, layout.directory)
    assert not layout.directory.exists()


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    """The lab behind `lab`; comes up when the first test asks for it."""
    layout = asyncio.run(control.up(tmp_path_factory.mktemp("shared") / "lab"))
    yield layout
    asyncio.run(_down(layout))


@pytest_asyncio.fixture
async def lab(shared_lab: Layout) -> AsyncIterator[Layout]:
    """A lab that is shared: break what `heal` mends, and move no right to write."""
    yield shared_lab
    status = await control.supervisor_status(shared_lab)
    assert status is not None, "the test killed the shared lab's supervisor"
    if status["faults"]:
        await control.heal(shared_lab)


@pytest_asyncio.fixture
async def fresh_lab(tmp_path: Path) -> AsyncIterator[Layout]:
    """A lab of the test's own: for failovers, and for what cannot be mended."""
    layout = await control.up(tmp_path / "lab")
    yield layout
    await _down(layout)


@pytest.fixture(scope="module")
def module_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    """A lab for the tests of one module, in their order: they may move the right to write to and fro."""
    layout = asyncio.run(control.up(tmp_path_factory.mktemp("module") / "lab"))
    yield layout
    asyncio.run(_down(layout))
