"""One PostgreSQL server on this machine: start it, wait for it, stop it, prove it dead, read where its WAL ends.

It does what it is told; whether that may be writable is the agent's to know. The server must outlive a crash
of the agent while the lease lives (the guard watches it), so it does not die with its parent.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hmsdr.control import pgconf, pgcontrol
from hmsdr.control.proctable import MARK, boottime, database_processes, kill_database, start_time
from hmsdr.control.unprivileged import Unprivileged
from hmsdr.decide.lsn import format_lsn, parse_lsn
from hmsdr.errors import FailedError

_LOG_LIMIT = 32 * 1024 * 1024
_TOOL_SECONDS = 20.0
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a command: the kernel kills it when who started it is gone."""
SEGMENT = 16 * 1024 * 1024
WAL_ENDS = re.compile(r"(?:at|LSN) ([0-9A-F]+/[0-9A-F]+)")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ControlData:
    """What pg_controldata says; LSNs in bytes of WAL."""

    state: str
    system_identifier: int
    checkpoint: int
    redo: int
    timeline: int
    reached_timeline: int = 0
    """Up to which timeline its recovery has come; the checkpoint's may be older."""
    segment: int = SEGMENT
    """Size of a file of WAL, in bytes."""

    @property
    def newest_timeline(self) -> int:
        """The timeline that it is on."""
        return max(self.timeline, self.reached_timeline)

    @property
    def shut_down(self) -> bool:
        """Stopped with a shutdown checkpoint (of a primary or of a standby)."""
        return self.state in ("shut down", "shut down in recovery")


class PostgresServer:
    """The server of one data directory.

    Args:
        directory: the data directory.
        binaries: where postgres, pg_controldata and pg_waldump are.
        unprivileged: how to start them.
        log: file that the server's own messages go to.
    """

    def __init__(self, directory: Path, binaries: Path, unprivileged: Unprivileged, log: Path) -> None:
        self.directory = directory.resolve()
        self.unprivileged = unprivileged
        self._binaries = binaries
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a data directory."""
        return (self.directory / "PG_VERSION").exists()

    @property
    def version(self) -> int:
        """Its major version."""
        return int((self.directory / "PG_VERSION").read_text())

    def pid(self) -> int | None:
        """The live postmaster's process id; None when there is none."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        pid, started = self._pid_file()
        if pid is None or (start := start_time(pid)) is None:
            return None
        # The file names its start in seconds; a reused pid of another process is hours or boots away.
        with suppress(OSError):
            cwd = Path(f"/proc/{pid}/cwd").readlink()
            return pid if cwd == self.directory else None
        booted = _boot_wall() + start / _TICKS
        return pid if started is not None and abs(booted - started) < 5 else None  # noqa: PLR2004

    def make_standby(self, *, durable: bool = True) -> None:
        """Whoever starts it from now on gets a standby, see `hmsdr.control.pgconf`."""
        pgconf.make_standby(self.directory, durable=durable)

    def allow_writable(self) -> None:
        """The next start is writable; the caller calls `make_standby` right after it."""
        pgconf.allow_writable(self.directory)

    async def left_standby(self, pause: float) -> None:
        """Wait until the next start would not give a standby; it is looked for every `pause` seconds."""
        standby = True
        while standby:  # nobody tells of a file that goes
            await asyncio.sleep(pause)
            standby = await asyncio.to_thread(pgconf.is_standby, self.directory)

    def own(self) -> None:
        """Give its files to whom it runs as."""
        self.unprivileged.own(self.directory)

    def clear_socket(self, sockets: Path | None, port: int) -> None:
        """Nothing of it runs, so what its socket's lock file in `sockets` names is long gone."""
        if sockets is not None:
            for name in (f".s.PGSQL.{port}", f".s.PGSQL.{port}.lock"):
                (sockets / name).unlink(missing_ok=True)

    def processes(self) -> dict[int, int]:
        """All live processes of the database, see `database_processes`."""
        return database_processes(str(self.directory), self.unprivileged.owner)

    async def start(self, *, writable: bool, settings: dict[str, str], deadline: float) -> None:
        """Start it and wait until it takes connections.

        `writable` only with a live lease; also then a later start outside the agent gives a standby.

        Raises:
            FailedError: it did not come up within `deadline` seconds.
        """
        doing = f"starting PostgreSQL in {self.directory}"
        if left := self.processes():
            raise FailedError(doing, f"{len(left)} processes of it still run", "Fence it first")
        (self.directory / "postmaster.pid").unlink(
            missing_ok=True
        )  # nothing of it runs: what it names is long gone
        pgconf.write_settings(self.directory, settings)
        pgconf.allow_archiving(self.directory)
        if writable:
            self.allow_writable()
        else:
            self.make_standby()
        try:
            self._child = self._launch()
            await self._wait_ready(doing, deadline)
        finally:
            if writable:
                self.make_standby()

    def _launch(self) -> subprocess.Popen[bytes]:
        with suppress(FileNotFoundError):
            if self._log.stat().st_size > _LOG_LIMIT:
                self._log.replace(self._log.with_suffix(".1"))
        command = self.unprivileged.command(self._binaries / "postgres", "-D", self.directory)
        with self._log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, MARK: str(self.directory)},
                start_new_session=True,
            )

    async def _wait_ready(self, doing: str, deadline: float) -> None:
        until = boottime() + deadline
        while boottime() < until:
            if self._child is not None and (status := self._child.poll()) is not None:
                self._child = None
                raise FailedError(
                    doing, f"it exited with status {status}: {self.last_words()}", f"See {self._log}"
                )
            with suppress(OSError):
                lines = (self.directory / "postmaster.pid").read_text().splitlines()
                if len(lines) > 7 and lines[7].strip() in ("ready", "standby"):  # noqa: PLR2004 - PM status
                    return
            await asyncio.sleep(0.005)
        raise FailedError(doing, f"it does not take connections after {deadline:g} s", f"See {self._log}")

    async def wait_exit(self, pid: int, deadline: float | None) -> bool:
        """Wait until the process `pid` is gone; False when it is not within `deadline` seconds (None: forever)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await _gone(pid)
                if self._child is not None:
                    self._child.poll()
                return True
        return False

    async def stop_fast(self, deadline: float) -> bool:
        """Ask for a clean stop (sessions end, WAL goes to the standby, checkpoint); whether it came in time."""
        pid = self.pid()
        if pid is None:
            return not self.processes()
        pgconf.stop_archiving(self.directory)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        return await self.wait_exit(pid, deadline)

    async def kill(self, seconds: float) -> tuple[int, int]:
        """Kill all of it; gives how many were killed and how many survived `seconds` (0: proven dead)."""
        result = await asyncio.to_thread(kill_database, str(self.directory), seconds, self.unprivileged.owner)
        if self._child is not None:
            self._child.poll()
        return result

    async def control(self) -> ControlData:
        """Read pg_controldata.

        Raises:
            FailedError: it cannot be read.
        """
        status, output, errors = await self.tool("pg_controldata", "-D", self.directory)
        if status != 0:
            raise FailedError(
                f"reading the control file of {self.directory}", errors.strip(), "Rebuild it as a standby"
            )
        found = dict(line.split(":", 1) for line in output.splitlines() if ":" in line)
        return ControlData(
            state=found["Database cluster state"].strip(),
            system_identifier=int(found["Database system identifier"]),
            checkpoint=parse_lsn(found["Latest checkpoint location"].strip()),
            redo=parse_lsn(found["Latest checkpoint's REDO location"].strip()),
            timeline=int(found["Latest checkpoint's TimeLineID"]),
            reached_timeline=int(found["Min recovery ending loc's timeline"]),
            segment=int(found["Bytes per WAL segment"]),
        )

    def shut_down(self) -> ControlData | None:
        """What the control file says of a primary that ended in order, told at once; None: ask `control`."""
        found = pgcontrol.shut_down(self.directory)
        if found is None:
            return None
        return ControlData("shut down", found.system_identifier, found.checkpoint, found.redo, found.timeline)

    def waldump(self, start: int, timeline: int, segment: int, end: int | None = None) -> list[str]:
        """What pg_waldump is asked with: from `start` to `end` (bytes of WAL; None: all there is).

        Files are named: left to itself it may ask one that is not written yet how large a file is.
        """
        first = self.segment(start, timeline, segment)
        if end is None:
            files = first.parent.glob(f"{timeline:08X}{'[0-9A-F]' * 16}")
            last = max((path for path in files if path.name >= first.name and written(path)), default=first)
            end = ((int(last.name[8:16], 16) << 32) // segment + int(last.name[16:], 16) + 1) * segment
        else:
            last = self.segment(end - 1, timeline, segment)
        places = ["-s", format_lsn(start), "-e", format_lsn(end)]
        return ["-p", str(first.parent), "-t", str(timeline), *places, first.name, last.name]

    def segment(self, lsn: int, timeline: int, size: int) -> Path:
        """The file of WAL with the byte `lsn`."""
        number, each = lsn // size, (1 << 32) // size
        return self.directory / "pg_wal" / f"{timeline:08X}{number // each:08X}{number % each:08X}"

    async def end_of_wal(self, start: int, timeline: int, segment: int = SEGMENT) -> int | None:
        """Where the WAL of the dead server ends, read from `start` on; None when that cannot be told."""
        with suppress(TimeoutError):
            _, _, errors = await self.tool("pg_waldump", "-q", *self.waldump(start, timeline, segment))
            # "error in WAL record at 0/2D15A40: invalid record length at 0/2D15A78: …": the second is the end.
            # Where the next page is an old one's, it says so: "… unexpected pageaddr …, LSN 0/3000000, offset 0".
            ends = WAL_ENDS.findall(errors)
            if ends:
                return parse_lsn(ends[-1])
            if "could not find a valid record after" in errors:
                return start
        return None

    def beside(self, directory: Path) -> PostgresServer:
        """The same programs for another data directory."""
        return PostgresServer(directory, self._binaries, self.unprivileged, self._log)

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """How one of PostgreSQL's programs is started."""
        return self.unprivileged.command(self._binaries / name, *arguments)

    @property
    def environment(self) -> dict[str, str]:
        """What its programs find in their environment: they speak English."""
        return {**os.environ, "LC_ALL": "C"}

    async def tool(
        self,
        name: str,
        *arguments: str | Path,
        deadline: float = _TOOL_SECONDS,
        given: bytes = b"",
        environment: Mapping[str, str] | None = None,
        dies: bool = False,
    ) -> tuple[int, str, str]:
        """Run one of PostgreSQL's tools with `given` as its input and `environment` besides ours.

        Gives exit status, output and errors. With `dies` it ends when we do, however we end: for what writes.

        Raises:
            TimeoutError: it did not end within `deadline` seconds (it is killed).
        """
        process = await asyncio.create_subprocess_exec(
            *self.unprivileged.command(*(DIES_WITH_US if dies else ()), self._binaries / name, *arguments),
            stdin=asyncio.subprocess.PIPE if given else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self.environment, **(environment or {})},
        )
        try:
            async with asyncio.timeout(deadline):
                output, errors = await process.communicate(given or None)
        except BaseException:
            with suppress(ProcessLookupError):
                process.kill()
            raise
        return process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace")

    def last_words(self, lines: int = 3) -> str:
        """The last lines of the server's log."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - 4096))
                tail: Sequence[str] = file.read().decode(errors="replace").splitlines()
        except OSError:
            return "no log"
        return " | ".join(tail[-lines:])

    def _pid_file(self) -> tuple[int | None, int | None]:
        try:
            lines = (self.directory / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), int(lines[2])
        except (OSError, ValueError, IndexError):
            return None, None


def written(file: Path) -> bool:
    """Whether anything was written to a file of WAL; one that waits for its turn begins with zeros."""
    try:
        with file.open("rb") as content:
            return content.read(2) not in (b"", b"\0\0")
    except FileNotFoundError:
        return False


async def _gone(pid: int) -> None:
    """Return when process `pid`, child of ours or not, no longer runs."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        loop.add_reader(handle, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _boot_wall() -> float:
    return time.time() - boottime()
