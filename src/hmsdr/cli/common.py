"""What several commands share: which playbook is meant, its store, and running a coroutine. A face only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from hmsdr.errors import RefusedError
from hmsdr.log.opening import open_store
from hmsdr.log.store import Store
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook

_T = TypeVar("_T")

PLAYBOOK_ENV = "HMSDR_PLAYBOOK"
LAB_ENV = "HMSDR_LAB"
DEFAULT_LAB = Path(".hmsdr/lab")

F = TypeVar("F", bound=Callable[..., Any])


def playbook_option(command: F) -> F:
    """``--playbook FILE``; without it the environment, ``hmsdr.yaml`` here, or the lab that runs here."""
    return click.option(
        "--playbook",
        "playbook_path",
        type=click.Path(path_type=Path),
        help=f"Playbook file. Default: ${PLAYBOOK_ENV}, ./hmsdr.yaml, or the lab in {DEFAULT_LAB}.",
    )(command)


def by_option(command: F) -> F:
    """``--by NAME``: who acts, for the record."""
    return click.option("--by", required=True, help="Your name, for the record.")(command)


def find_playbook(path: Path | None) -> Path:
    """The playbook file that is meant.

    Raises:
        RefusedError: none was named and none is where one would be.
    """
    if path is not None:
        return path
    if PLAYBOOK_ENV in os.environ:
        return Path(os.environ[PLAYBOOK_ENV])
    lab = Path(os.environ.get(LAB_ENV, DEFAULT_LAB)) / "playbook.yaml"
    for candidate in (Path("hmsdr.yaml"), lab):
        if candidate.exists():
            return candidate
    raise RefusedError(
        "looking for the playbook",
        f"no --playbook, no ${PLAYBOOK_ENV}, no ./hmsdr.yaml, no lab in {DEFAULT_LAB}",
        "Name one with --playbook FILE; `hmsdr validate hms` shows the shipped one",
    )


@asynccontextmanager
async def opened(path: Path | None) -> AsyncIterator[tuple[Playbook, Store]]:
    """The playbook that is meant and its open store."""
    found = find_playbook(path)
    playbook = load(found)
    store = await open_store(playbook)
    try:
        yield playbook, store
    finally:
        await store.close()


def run_async(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a command's coroutine."""
    return asyncio.run(work)
