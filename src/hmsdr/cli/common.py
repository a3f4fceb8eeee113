"""What several commands share: which playbook is meant, its store, and running a coroutine. A face only."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from hmsdr.errors import FailedError, RefusedError
from hmsdr.log.opening import open_store
from hmsdr.log.store import Store
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook

_T = TypeVar("_T")

PLAYBOOK_ENV = "HMSDR_PLAYBOOK"
LAB_ENV = "HMSDR_LAB"
DEFAULT_LAB = Path(".hmsdr/lab")

json_option = click.option("--json", "as_json", is_flag=True, help="For machines.")

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


def lab_directory() -> Path:
    """The lab's directory when none is named: the environment's, or the default."""
    return _named(LAB_ENV) or DEFAULT_LAB


def _named(variable: str) -> Path | None:
    """The path in an environment variable; an empty variable says nothing, and certainly not the directory here."""
    text = os.environ.get(variable, "")
    return Path(text) if text.strip() else None


def find_playbook(path: Path | None) -> Path:
    """The playbook file that is meant.

    Raises:
        RefusedError: none was named and none is where one would be.
    """
    if path is not None:
        return path
    if (named := _named(PLAYBOOK_ENV)) is not None:
        return named
    lab = lab_directory() / "playbook.yaml"
    for candidate in (Path("hmsdr.yaml"), lab):
        if candidate.exists():
            return candidate
    raise RefusedError(
        "looking for the playbook",
        f"no --playbook, no ${PLAYBOOK_ENV}, no ./hmsdr.yaml, no lab in {lab_directory()}",
        "Name one with --playbook FILE; `hmsdr validate hms` shows the shipped one",
    )


@asynccontextmanager
async def opened(path: Path | None, *, reading: bool = False) -> AsyncIterator[tuple[Playbook, Store]]:
    """The playbook that is meant and its open store; `reading`, when nothing will be written to it."""
    found = find_playbook(path)
    playbook = load(found)
    store = await open_store(playbook, reading=reading)
    try:
        yield playbook, store
    finally:
        await store.close()


@contextmanager
def interruptible(doing: str, remedy: str) -> Iterator[None]:
    """Say what is true when somebody presses Ctrl-C while this is `doing`.

    Raises:
        FailedError: it was interrupted.
    """
    try:
        yield
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise FailedError(doing, "it was interrupted", remedy) from None


@contextmanager
def undisturbed() -> Iterator[None]:
    """While this looks at what an interruption left, a second Ctrl-C is not heard; it is short."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_async(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a command's coroutine."""
    return asyncio.run(work)
