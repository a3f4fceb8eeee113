"""A copy of a stopped database in which something is looked up, and which nobody else can reach; never the real one.

It is run as PostgreSQL's single process: no port, no socket, no archiving, no replication, and an end with the agent's
own. It is removed afterwards, and after a crash at the next start. What comes out of it is patients' data.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from hmsdr.control.proctable import kill_database
from hmsdr.control.server import PostgresServer
from hmsdr.errors import FailedError

_COPY_SECONDS = 6 * 3600.0
_RUN_SECONDS = 3600.0
_KILL_SECONDS = 10.0
_MARGIN = 256 * 1024 * 1024
"""Room for what recovery and the result need besides the copy."""
_REMEDY = "Make room there, or give the order with a name and a reason to go on without the lost rows"
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_directories": "",
    "archive_mode": "off",
    "primary_conninfo": "",
    "restore_command": "",
    "external_pid_file": "",
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
    "huge_pages": "off",
    "wal_level": "logical",
    "max_slot_wal_keep_size": "-1",
    "allow_in_place_tablespaces": "on",  # the links of the original are directories here
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_messages": "error",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "exit_on_error": "on",
    # So that the same data gives the same text everywhere:
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "lc_numeric": "C",
}
_SINCE = {"transaction_timeout": 17}
"""Settings that older servers do not know."""
_NOT_COPIED = ("postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal")


class Isolated:
    """Copies of the database of one `server`, one at a time.

    Args:
        server: the real one; nothing of it runs while a copy is made.
        elsewhere: where the copy is put when the data directory is a file system of its own.
        margin: bytes that must stay free besides what the copy needs.
    """

    def __init__(self, server: PostgresServer, elsewhere: Path, *, margin: int = _MARGIN) -> None:
        self._server = server
        self._margin = margin
        real = server.directory
        # Beside the data directory it is on the same file system, which may share the blocks instead of copying them.
        own = real.exists() and real.stat().st_dev != real.parent.stat().st_dev
        self.place = elsewhere / "lost.copy" if own else real.with_name(f".{real.name}.hmsdr-lost")

    async def sweep(self) -> None:
        """Remove what an earlier life left, its process first."""
        await asyncio.to_thread(self._put_away)
        await asyncio.to_thread(self._remove)

    def _put_away(self) -> None:
        """End what runs in it and make its place free; removing it may take longer."""
        if not self.place.exists():
            return
        _, survivors = kill_database(str(self._data), _KILL_SECONDS, self._server.unprivileged.owner)
        if survivors:
            raise FailedError(
                f"removing {self.place}", f"{survivors} processes of it survive", "See what they wait for"
            )
        if self._gone.exists():
            shutil.rmtree(self._gone)
        self.place.replace(self._gone)

    def _remove(self) -> None:
        shutil.rmtree(self._gone, ignore_errors=True)  # what is in use is tried again with the next copy

    @property
    def _gone(self) -> Path:
        return self.place.with_name(f"{self.place.name}.gone")

    @property
    def _data(self) -> Path:
        return self.place / "data"

    @asynccontextmanager
    async def copied(self) -> AsyncIterator[PostgresServer]:
        """The copy while it lasts.

        Raises:
            FailedError: it cannot be made: no room, say.
        """
        await self.sweep()
        doing = f"copying {self._server.directory} to {self.place}"
        try:
            try:
                self.place.mkdir(mode=0o700)
                await self._has_room(doing)
                await self._copy(doing)
                await asyncio.to_thread(self._server.unprivileged.own, self.place)
            except OSError as error:
                raise FailedError(doing, str(error), _REMEDY) from error
            yield self._server.beside(self._data)
        except asyncio.CancelledError:
            # Something more urgent is to be done: it does not wait for files to be removed.
            await asyncio.shield(asyncio.to_thread(self._put_away))
            asyncio.get_running_loop().run_in_executor(None, self._remove)
            raise
        finally:
            if self.place.exists():
                await self.sweep()

    async def _has_room(self, doing: str) -> None:
        size = await asyncio.to_thread(_size, self._server.directory)
        needed = self._margin + (0 if await self._shares_blocks() else size)
        free = shutil.disk_usage(self.place).free
        if free < needed:
            raise FailedError(
                doing, f"{needed >> 20} MiB are needed there and {free >> 20} MiB are free", _REMEDY
            )

    async def _shares_blocks(self) -> bool:
        probe = self.place / "probe"
        process = await asyncio.create_subprocess_exec(
            *("cp", "--reflink=always", str(self._server.directory / "PG_VERSION"), str(probe)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        status = await process.wait()
        probe.unlink(missing_ok=True)
        return status == 0

    async def _copy(self, doing: str) -> None:
        """Links are followed (-L): WAL and tablespaces that lie elsewhere must not be shared with the copy."""
        process = await asyncio.create_subprocess_exec(
            *("cp", "-a", "-L", "--reflink=auto", str(self._server.directory), str(self._data)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_COPY_SECONDS):
                _, errors = await process.communicate()
        except TimeoutError as error:
            raise FailedError(doing, f"it takes longer than {_COPY_SECONDS:g} s", _REMEDY) from error
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
        if process.returncode != 0:
            said = errors.decode(errors="replace").strip().splitlines()[-1:]
            raise FailedError(doing, " ".join(said) or f"cp ended with {process.returncode}", _REMEDY)
        for name in _NOT_COPIED:
            (self._data / name).unlink(missing_ok=True)


async def ask(copy: PostgresServer, database: str, statements: list[str]) -> None:
    """Have the copy recover, carry out `statements` (each on one line) in `database`, and end.

    Raises:
        FailedError: it does not come up, or one of them fails.
    """
    doing = "reading an isolated copy of the database"
    chosen = {
        **{name: value for name, value in _SETTINGS.items() if copy.version >= _SINCE.get(name, 0)},
        "data_directory": str(copy.directory),  # a setting of that name in its files names the real one
    }
    options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
    given = "".join(f"{statement}\n" for statement in statements).encode()
    try:
        status, _, errors = await copy.tool(
            "postgres",
            "--single",
            *("-D", str(copy.directory), *options, database),
            deadline=_RUN_SECONDS,
            given=given,
        )
    except TimeoutError as error:
        raise FailedError(
            doing, f"it did not end within {_RUN_SECONDS:g} s", "Give the order again"
        ) from error
    if status != 0:
        said = [line for line in errors.splitlines() if "FATAL" in line or "PANIC" in line]
        raise FailedError(
            doing,
            said[-1].partition("FATAL:")[2].strip() or said[-1] if said else f"it ended with {status}",
            "Restore what it misses and give the order again, or go on without by name and with a reason",
        )


def _size(directory: Path) -> int:
    """Bytes on disk, links followed."""
    total = 0
    for path, _, files in os.walk(directory, followlinks=True):
        for name in files:
            with suppress(OSError):
                total += (Path(path) / name).stat().st_blocks * 512
    return total
