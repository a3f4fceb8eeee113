"""Starting a lab's supervisor, and cleaning up in its place when it is gone. One lab in one directory, or none."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmsdr.errors import FailedError, RefusedError
from hmsdr.lab.client import LINE_LIMIT, alive, control_name, lab_id, raise_problem, say
from hmsdr.lab.components import environment
from hmsdr.lab.layout import Layout
from hmsdr.lab.ports import Networks
from hmsdr.lab.processes import lab_processes, sweep

Progress = Callable[[dict[str, Any]], None]
"""Told ``{"step", "state", "at"}`` while a lab comes up; `at` in seconds."""

UP_SECONDS = 120.0
DOWN_SECONDS = 10.0
_PAUSE = 0.05
_LONGEST_PATH = 400
"""Bytes of a lab's own path: below it lie names of up to a hundred, and SQLite opens 512."""


async def take_place(directory: Path) -> socket.socket:
    """The listening control socket: whoever holds it owns the directory."""
    doing = f"bringing a lab up in {directory}"
    mark = lab_id(directory)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ends = time.monotonic() + DOWN_SECONDS
    try:
        while True:
            try:
                control.bind(control_name(mark))
                control.listen(16)
            except OSError:
                if await alive(mark) or time.monotonic() > ends:
                    raise RefusedError(
                        doing,
                        "a lab is up there already",
                        "`hmsdr lab down` first, or name another with --dir",
                    ) from None
                await asyncio.sleep(_PAUSE)  # the last of a killed lab are being swept
            else:
                break
        _check_place(directory, doing)
    except BaseException:
        control.close()
        raise
    return control


def _check_place(directory: Path, doing: str) -> None:
    if len(os.fsencode(directory)) > _LONGEST_PATH:
        raise RefusedError(
            doing, f"its path has more than {_LONGEST_PATH} bytes: servers cannot open files below it",
            "Name a shorter one with --dir",
        )  # fmt: skip
    if any(not character.isprintable() for character in str(directory)):
        raise RefusedError(doing, "its name has a character that cannot be shown", "Name another with --dir")
    if directory.exists() and not directory.is_dir():
        raise RefusedError(doing, "it is not a directory", "Name another with --dir")
    if directory.exists() and not (directory / "lab.json").exists() and any(directory.iterdir()):
        raise RefusedError(doing, "it is not empty, and no lab's", "Name another with --dir")


def sweep_leftovers(directory: Path) -> None:
    """Kill and remove what an earlier lab of the same directory left: its supervisor is gone."""
    sweep(lab_id(directory), directory, seconds=DOWN_SECONDS)
    if (directory / "lab.json").exists():
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _make(layout: Layout) -> None:
    try:
        layout.directory.mkdir(parents=True, exist_ok=True)
        (layout.directory / "logs").mkdir(exist_ok=True)
        layout.save()
    except OSError as error:
        raise RefusedError(
            f"making a lab in {layout.directory}",
            f"nothing can be written there: {error.strerror}",
            "Name a directory on a disk that can be written, with --dir",
        ) from error


async def start(
    layout: Layout, control: socket.socket, networks: Networks, progress: Progress, *, keep_failed: bool
) -> None:
    """Start the supervisor in `layout`'s directory, handing it `control` and the claims; return when the lab is up.

    Raises:
        HmsdrError: it did not come up; unless `keep_failed`, nothing is left, as after a cancellation.
    """
    created = [path for path in (layout.directory, layout.directory.parent) if not path.exists()]
    ours, theirs = socket.socketpair()
    try:
        _make(layout)
        process = _spawn(layout, control, theirs, networks, created, keep_failed=keep_failed)
        theirs.close()
        control.close()
        # It forks and ends: the supervisor is nobody's child, and outlives us.
        await asyncio.to_thread(process.wait)
        await _follow(ours, progress)
    except BaseException:
        ours.close()
        theirs.close()
        if not keep_failed:
            await _gone(layout, created)
        raise


def _spawn(
    layout: Layout,
    control: socket.socket,
    owner: socket.socket,
    networks: Networks,
    created: list[Path],
    *,
    keep_failed: bool,
) -> subprocess.Popen[bytes]:
    descriptors = [control.fileno(), owner.fileno(), *(claim.fileno() for claim in networks.claims)]
    command = [sys.executable, "-m", "hmsdr.lab.supervisor", "--lab", str(layout.directory)]
    command += ["--control", str(control.fileno()), "--owner", str(owner.fileno())]
    for claim in networks.claims:
        command += ["--claim", str(claim.fileno())]
    for directory in created:
        command += ["--created", str(directory)]
    with (layout.directory / "logs" / "supervisor.log").open("ab") as log:
        return subprocess.Popen(
            ["setsid", "--fork", *command, *(["--keep-failed"] if keep_failed else [])],
            pass_fds=descriptors,
            env=environment(layout, None),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


async def _follow(ours: socket.socket, progress: Progress) -> None:
    """Pass progress on until the lab is up.

    Raises:
        HmsdrError: it did not come up.
    """
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_LIMIT)
    try:
        async with asyncio.timeout(UP_SECONDS):
            while line := await reader.readline():
                message = json.loads(line)
                if "up" in message:
                    return
                raise_problem(message)
                progress(message)
        raise FailedError(
            "bringing the lab up", "its supervisor ended", "See logs/supervisor.log with --keep"
        )
    except TimeoutError as error:
        raise FailedError(
            "bringing the lab up", f"not up after {UP_SECONDS:g} s", "Try with --keep"
        ) from error
    finally:
        writer.close()


async def _gone(layout: Layout, created: list[Path]) -> None:
    """Wait until the supervisor has cleaned up; do it in its place when it does not."""
    ends = time.monotonic() + DOWN_SECONDS
    while time.monotonic() < ends and anything_left(layout):
        with suppress(asyncio.CancelledError):  # a second Ctrl-C does not stop the cleaning
            await asyncio.sleep(_PAUSE)
    sweep(layout.lab_id, layout.directory, seconds=DOWN_SECONDS)
    if layout.directory.exists():
        for entry in [*layout.directory.iterdir()]:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
    for directory in created:
        with suppress(OSError):
            directory.rmdir()


@dataclass(frozen=True, slots=True)
class Remains:
    """What is in a lab's directory: a supervisor that answers, processes of it, its files."""

    up: bool
    processes: int
    files: bool


def remains(directory: Path, *, seconds: float = DOWN_SECONDS) -> Remains:
    """What an interrupted start left in `directory` (absolute); one that is still ending is given `seconds` for it."""
    mark, ends = lab_id(directory), time.monotonic() + seconds
    while True:
        count = len(lab_processes(mark, directory))
        up = count > 0 and asyncio.run(_is_up(mark))
        if count == 0 or up or time.monotonic() > ends:
            return Remains(up, count, (directory / "lab.json").exists())
        time.sleep(_PAUSE)


async def _is_up(mark: str) -> bool:
    """Whether a supervisor serves there that has brought its lab up, and is not ending it."""
    try:
        return bool((await say(mark, {"do": "status"})).get("up"))
    except (OSError, TimeoutError, ValueError):
        return False


def anything_left(layout: Layout) -> bool:
    """Whether a process of the lab is alive."""
    return bool(lab_processes(layout.lab_id, layout.directory))
