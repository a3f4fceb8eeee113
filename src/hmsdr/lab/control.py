"""A lab from outside: bring it up, take it down, break it, heal it, let clinics work against it.

What the command line and the drill use. The supervisor does the work; this starts it, talks to it, and cleans up
after one that is gone.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmsdr.errors import FailedError, HmsdrError, RefusedError
from hmsdr.lab import binaries, wires
from hmsdr.lab.client import PING_SECONDS, ask, lab_id
from hmsdr.lab.components import environment
from hmsdr.lab.launch import DOWN_SECONDS, Progress, anything_left, start, sweep_leftovers, take_place
from hmsdr.lab.layout import Layout
from hmsdr.lab.ports import choose_ports, claim_networks, lay_out
from hmsdr.lab.processes import DIE_WITH_PARENT, sweep

BREAK_SECONDS = 15.0
HEAL_SECONDS = 180.0
FIRST_WRITE_SECONDS = 20.0
_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Break:
    """A fault that happened: when the first process was killed (UTC seconds, monotonic seconds), and how many."""

    wall: float
    monotonic: float
    count: int
    region: str
    what: str


class Clinics:
    """Clinics at work; every acknowledged write is in their ledger."""

    def __init__(self, process: subprocess.Popen[bytes], ledger: Path) -> None:
        self.ledger = ledger
        self._process = process

    async def stop(self, *, deadline: float = 10.0) -> None:
        """Let them end in order; what is still there after `deadline` seconds is killed."""
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, deadline)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)


async def up(
    directory: Path,
    *,
    progress: Progress = lambda _: None,
    address: str | None = None,
    ports: Mapping[str, int] | None = None,
    keep_failed: bool = False,
    ha: bool = False,
) -> Layout:
    """Bring a lab up in `directory` and return when both regions are ready. Cancelled, it leaves nothing.

    In a world of `hmsdr.lab.wires`, each site stands in a namespace of its own. With `ha`, log and write authority are in etcd at three sites, and a controller at each watches, votes and fails over.

    Raises:
        RefusedError: a lab is up there, something else is there, a port is taken, a program is missing.
        FailedError: a part did not come up; nothing is left, unless `keep_failed`.
    """
    directory = directory.absolute()
    binaries.require(etcd=ha)
    control = await take_place(directory)
    try:
        sweep_leftovers(directory)
        apart = wires.entered()
        networks = wires.networks() if apart else claim_networks(directory, address)
        try:
            chosen = wires.standard_ports() if apart else choose_ports(networks, ports or {})
            layout = lay_out(directory, lab_id(directory), _user(), networks, chosen, ha=ha, namespaces=apart)
            await start(layout, control, networks, progress, keep_failed=keep_failed)
        finally:
            networks.close()
    finally:
        control.close()
    return layout


async def down(layout: Layout, *, keep: bool = False) -> int:
    """Stop everything and remove the directory (with `keep`, leave it); gives how many processes were swept here.

    Raises:
        FailedError: something is still running, or the directory is still there.
    """
    ends = time.monotonic() + DOWN_SECONDS
    with suppress(HmsdrError):
        await ask(layout, {"do": "down", "keep": keep}, deadline=PING_SECONDS)
        while time.monotonic() < ends and await asyncio.to_thread(anything_left, layout):  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(_PAUSE)
    killed = await asyncio.to_thread(sweep, layout.lab_id, layout.directory, seconds=DOWN_SECONDS)
    if killed.survivors:
        raise FailedError(
            f"taking down the lab in {layout.directory}",
            f"{killed.survivors} processes are still alive",
            "Try again; they may wait for a disk",
        )
    if not keep and layout.directory.exists():
        shutil.rmtree(layout.directory, ignore_errors=True)
        if layout.directory.exists() and any(layout.directory.iterdir()):
            raise FailedError(
                f"removing {layout.directory}", "files are left in it", "Remove it by hand, or try again"
            )
    return killed.count


async def break_(
    layout: Layout,
    fault: str,
    *,
    region: str | None = None,
    service: str | None = None,
    hold: bool = False,
) -> Break:
    """Let `fault` happen to `region` (default: home); with `hold`, again and again until `heal`.

    Raises:
        RefusedError: unknown fault, region or service; nothing to kill; no lab there.
        FailedError: processes survived.
    """
    request = {"do": "break", "fault": fault, "region": region, "service": service, "hold": hold}
    answer = await ask(layout, request, deadline=BREAK_SECONDS)
    return Break(answer["wall"], answer["monotonic"], answer["count"], answer["region"], answer["what"])


async def heal(layout: Layout) -> dict[str, str]:
    """Start again what was broken; gives how each region came back, in words.

    Raises:
        FailedError: a part did not come back.
    """
    answer = await ask(layout, {"do": "heal"}, deadline=HEAL_SECONDS)
    return dict(answer["regions"])


async def supervisor_status(layout: Layout) -> dict[str, Any] | None:
    """What the supervisor says; None when there is none."""
    try:
        return await ask(layout, {"do": "status"}, deadline=PING_SECONDS)
    except HmsdrError:
        return None


async def start_clinics(layout: Layout, ledger: Path, rate: float | None = None) -> Clinics:
    """Let clinics work, `rate` operations a second; returns after the first acknowledged write.

    Raises:
        FailedError: none was acknowledged.
    """
    log = layout.directory / "logs" / "clinics.log"
    process = _spawn_clinics(layout, ledger, rate, log)
    clinics = Clinics(process, ledger)
    ends = time.monotonic() + FIRST_WRITE_SECONDS
    while not (ledger.exists() and ledger.stat().st_size):
        if process.poll() is not None or time.monotonic() > ends:
            await clinics.stop()
            said = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise FailedError(
                "starting the clinics", f"no write was acknowledged: {' | '.join(said)}", "See the log"
            )
        await asyncio.sleep(_PAUSE)
    return clinics


def _spawn_clinics(layout: Layout, ledger: Path, rate: float | None, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hmsdr.lab.hms.clinics", "--lab", str(layout.directory)]
    command += ["--ledger", str(ledger), *(["--rate", f"{rate:g}"] if rate is not None else [])]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [*DIE_WITH_PARENT, *command],
            env=environment(layout, None),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def existing(directory: Path) -> Layout:
    """The lab in `directory`.

    Raises:
        RefusedError: there is none.
    """
    try:
        return Layout.load(directory.absolute())
    except (FileNotFoundError, NotADirectoryError):
        raise RefusedError(
            f"looking for a lab in {directory}", "there is none", "Start one with `hmsdr lab up`"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(
            f"reading {directory / 'lab.json'}", f"it is damaged ({error})", "Remove the directory"
        ) from error


def interrupt_on_signals() -> None:
    """From now on SIGTERM, SIGINT and SIGHUP cancel the current task, so that it can clean up."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - called from one
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _user() -> str | None:
    """The unprivileged user for servers that refuse root, where user namespaces do not work."""
    return "nobody" if os.geteuid() == 0 else None
