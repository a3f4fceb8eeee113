"""A restored database that runs for a while, beside everything else, and that nobody takes for the hospital's.

It has no TCP port: its socket lies in a directory that only we can enter. It archives nothing, follows nobody, reads nothing of
the original's configuration, and ends with us. Its directory is removed by us, or by the next one who uses the same place.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from hmsdr.backup.fetch import Choice, Target
from hmsdr.backup.findings import Kind, UnfitError
from hmsdr.control.proctable import MARK, kill_database
from hmsdr.control.server import PostgresServer
from hmsdr.decide.lsn import format_lsn
from hmsdr.errors import FailedError

PORT = 5433
"""Only a part of the socket's name: nothing listens on it."""
_CONFIG = "hmsdr-scratch.conf"
_HBA = "hmsdr-scratch.hba"
_AUTOMATIC = "postgresql.auto.conf"
_KILL_SECONDS = 10.0
_POLL_SECONDS = 0.05
_CONNECT_SECONDS = 5
_QUIET_SECONDS = 1.0
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
_FROM_CONTROL = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
    "track_commit_timestamp setting": "track_commit_timestamp",
}
"""A standby needs at least what the primary had."""


class Scratch:
    """One such database.

    Args:
        server: PostgreSQL's programs, and whom they run as.
        place: the directory for everything of it; ours alone.
    """

    def __init__(self, server: PostgresServer, place: Path) -> None:
        self.place = place
        self.data = place / "data"
        self.wal = place / "wal"
        self._log = place / "postgres.log"
        self._server = server.beside(self.data)
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None

    async def clear(self) -> None:
        """End what an earlier one left running here, and remove all of it.

        Raises:
            FailedError: processes survive.
        """
        await self.stop()
        await asyncio.to_thread(self._remove)
        self.place.mkdir(parents=True, mode=0o700)

    def _remove(self) -> None:
        with suppress(OSError):
            shutil.rmtree((self.place / "sockets").read_text())
        if self.place.exists():
            shutil.rmtree(self.place)

    async def remove(self) -> None:
        """Stop it, and leave nothing."""
        await self.stop()
        await asyncio.to_thread(self._remove)

    async def start(self, choice: Choice, *, stay_standby: bool, deadline: float) -> None:
        """Have it replay to the target of `choice` and stay there, readable.

        Args:
            choice: what was restored, and where to go.
            stay_standby: with no target, replay what there is and wait for more.
            deadline: seconds.

        Raises:
            UnfitError: it does not replay so far.
        """
        doing = f"replaying backup {choice.record.id}"
        # By its number, a timeline must have a history file; the backup's own needs none.
        stays = choice.chain.timeline == choice.record.timeline
        self._write_config(
            choice.target, "current" if stays else str(choice.chain.timeline), await self._needed()
        )
        signal_file = "standby.signal" if stay_standby else "recovery.signal"
        for name in ("standby.signal", "recovery.signal", "hmsdr.archive-stop"):
            (self.data / name).unlink(missing_ok=True)
        with suppress(FileNotFoundError):  # it would be read whatever the configuration's place
            (self.data / _AUTOMATIC).replace(self.place / _AUTOMATIC)
        (self.data / signal_file).touch(mode=0o600)
        await asyncio.to_thread(self._server.unprivileged.own, self.place)
        self._launch()
        await self._until_there(doing, stay_standby=stay_standby, deadline=deadline)

    async def _needed(self) -> dict[str, str]:
        status, output, errors = await self._server.tool("pg_controldata", "-D", self.data)
        if status != 0:
            raise UnfitError(
                f"reading the control file in {self.data}", Kind.CONTENT, errors.strip() or "no answer"
            )
        found = dict(line.split(":", 1) for line in output.splitlines() if ":" in line)
        return {setting: found[line].strip() for line, setting in _FROM_CONTROL.items() if line in found}

    def _write_config(self, target: Target, timeline: str, needed: Mapping[str, str]) -> None:
        wal = shlex.quote(str(self.wal)).replace("%", "%%")
        chosen = {
            **needed,
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self._socket_directory()),
            "unix_socket_permissions": "0700",
            "cluster_name": "hmsdr-scratch",
            "hba_file": str(self.data / _HBA),
            "hot_standby": "on",
            "wal_level": "replica",
            "archive_mode": "off",
            "primary_conninfo": "",
            "restore_command": f"cp {wal}/%f %p",
            "recovery_target_timeline": timeline,
            "recovery_target_action": "pause",
            "autovacuum": "off",
            "fsync": "off",
            "shared_buffers": "128MB",
            "huge_pages": "off",
            "wal_retrieve_retry_interval": "200ms",
            "lc_messages": "C",
            "timezone": "UTC",
            "log_min_error_statement": "panic",
        }
        if target.lsn is not None:
            # Not inclusive: everything that ends there is in, and nothing of the next record.
            chosen |= {"recovery_target_lsn": format_lsn(target.lsn), "recovery_target_inclusive": "off"}
        elif target.time is not None:
            chosen["recovery_target_time"] = target.time.isoformat()
        text = "".join(
            f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in chosen.items()
        )
        (self.data / _CONFIG).write_text(text)
        (self.data / _HBA).write_text("local all all trust\n")

    def _socket_directory(self) -> Path:
        """Short, as sockets' names must be; noted, so that it goes even when we die."""
        if self._sockets is None:
            self._sockets = Path(tempfile.mkdtemp(prefix="hmsdr-"))
            (self.place / "sockets").write_text(str(self._sockets))
            self._server.unprivileged.own(self._sockets)
        return self._sockets

    def _launch(self) -> None:
        command = [*_DIES_WITH_US, *self._server.command("postgres", "-D", self.data)]
        command += ["-c", f"config_file={self.data / _CONFIG}"]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**self._server.environment, MARK: os.path.realpath(self.data)},
                start_new_session=True,
            )

    async def _until_there(self, doing: str, *, stay_standby: bool, deadline: float) -> None:
        ends, quiet = time.monotonic() + deadline, 0.0
        while time.monotonic() < ends:
            if self._process is not None and self._process.poll() is not None:
                raise UnfitError(doing, Kind.REPLAY, f"PostgreSQL gave up: {self._last_words()}")
            with suppress(psycopg.Error, OSError):
                if stay_standby:
                    waits = await self.row(_WAITS_FOR_MORE)
                    quiet = (quiet or time.monotonic()) if waits[0] else 0.0
                    if quiet and time.monotonic() - quiet > _QUIET_SECONDS:
                        return
                elif (await self.row("SELECT pg_get_wal_replay_pause_state() = 'paused'"))[0]:
                    return
            await asyncio.sleep(_POLL_SECONDS)
        raise FailedError(
            doing, f"it is not there after {deadline:g} s", f"Give it more time; {self._last_words()}"
        )

    async def replayed(self) -> int:
        """Up to where it replayed, in bytes of WAL."""
        return int((await self.row("SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint"))[0])

    async def promote(self, *, deadline: float) -> None:
        """Make it writable, as it would be if it took the hospital's place: it must come up, and indexes can be checked in full."""
        ends = time.monotonic() + deadline
        await self.row("SELECT pg_promote(false)")
        while time.monotonic() < ends:
            with suppress(psycopg.Error, OSError):
                if not (await self.row("SELECT pg_is_in_recovery()"))[0]:
                    return
            await asyncio.sleep(_POLL_SECONDS)
        raise UnfitError(
            "opening the restored database", Kind.REPLAY, f"it does not open: {self._last_words()}"
        )

    def make_ordinary(self) -> None:
        """Take away what made it a scratch server: it is stopped, and is to take a real one's place."""
        for name in (_CONFIG, _HBA, "recovery.signal", "postmaster.opts"):
            (self.data / name).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            (self.place / _AUTOMATIC).replace(self.data / _AUTOMATIC)

    def connection_options(self) -> dict[str, Any]:
        """How it is reached, by us alone."""
        return {"host": str(self._sockets), "port": PORT, "connect_timeout": _CONNECT_SECONDS}

    async def row(self, query: str, *, user: str = "postgres", database: str = "postgres") -> tuple[Any, ...]:
        """The first row that it answers."""
        connection = await psycopg.AsyncConnection.connect(
            **self.connection_options(), user=user, dbname=database, autocommit=True
        )
        async with connection:
            found = await (await connection.execute(query.encode())).fetchone()
        return found or ()

    async def stop(self) -> None:
        """End it and prove it.

        Raises:
            FailedError: processes survive.
        """
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, _KILL_SECONDS)
        if self.data.exists():
            owner = self._server.unprivileged.owner
            _, left = await asyncio.to_thread(kill_database, str(self.data), _KILL_SECONDS, owner)
            if left:
                raise FailedError(
                    f"stopping the database in {self.data}", f"{left} processes survive", "Try again"
                )
        if process is not None:
            process.wait()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = self._log.read_text(errors="replace").splitlines()
            told = [line for line in lines if "FATAL:" in line or "PANIC:" in line or "invalid" in line]
            return " | ".join((told or lines)[-2:])[-600:]
        return "it said nothing"


_WAITS_FOR_MORE = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup' "
    "AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream'))"
)
