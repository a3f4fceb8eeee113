"""Making a region's first database, and its standby as a copy of it. Used once, before any agent runs.

Nothing made here is writable by itself: both come out as standbys, and the first promotion takes epoch 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psycopg
import psycopg.sql

from hmsdr.control import pgconf
from hmsdr.control.unprivileged import Unprivileged
from hmsdr.decide.authority import Authority, Holder, grant
from hmsdr.errors import FailedError, RefusedError

_INITDB_SECONDS = 120.0
_START_SECONDS = 30.0
_PORT = 5432
_SERIOUS = re.compile(r"\b(?:ERROR|FATAL|PANIC|error|fatal): ")
"""What marks the line of a PostgreSQL program's output that says why it failed."""

HBA = """# Written by hmsdr at initdb: the lab's servers listen on loopback addresses only.
local all all trust
local replication all trust
host all all 127.0.0.0/8 trust
host replication all 127.0.0.0/8 trust
"""
TABLES = """
CREATE TABLE IF NOT EXISTS hmsdr_epoch (
    epoch bigint PRIMARY KEY, instance text NOT NULL, since timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS hmsdr_heartbeat (
    id smallint PRIMARY KEY CHECK (id = 1), instance text NOT NULL, at timestamptz NOT NULL);
"""
"""What the agent writes: the first write of each epoch, and the primary's heartbeat each second."""

Schema = Callable[["psycopg.Connection[tuple[object, ...]]"], None]
"""Called with an open connection (autocommit) to the new database, to make tables and roles."""


def initialise(
    data_directory: Path,
    binaries: Path,
    unprivileged: Unprivileged,
    *,
    database: str = "hms",
    superuser: str = "postgres",
    schema: Schema | None = None,
    hba: str = HBA,
    sync: bool = True,
) -> None:
    """Run initdb with checksums, make the database with the agent's tables, then `schema`; ends shut down, as a standby.

    Args:
        data_directory: must not exist, or be empty.
        binaries: PostgreSQL's programs.
        unprivileged: how to run them.
        database: the hospital's database.
        superuser: PostgreSQL's superuser.
        schema: makes the hospital's own tables and roles.
        hba: the content of pg_hba.conf.
        sync: False skips syncing to disk: for a lab that can be made again.

    Raises:
        RefusedError: something is there already.
        FailedError: a program of PostgreSQL failed.
    """
    if data_directory.exists() and any(data_directory.iterdir()):
        raise RefusedError(
            f"making a database in {data_directory}", "it is not empty", "Name an empty directory"
        )
    data_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    data_directory.chmod(0o700)
    unprivileged.own(data_directory)
    command: list[str | Path] = [binaries / "initdb", "-D", data_directory, "-U", superuser, "-A", "trust"]
    command += ["--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
    _run(unprivileged.command(*command, *([] if sync else ["--no-sync"])), f"initdb in {data_directory}")
    hba_file = data_directory / "pg_hba.conf"
    hba_file.write_text(hba)
    with _Temporary(data_directory, binaries, unprivileged, sync=sync) as host:
        with psycopg.connect(
            host=host, port=_PORT, dbname="postgres", user=superuser, autocommit=True
        ) as first:
            if database != "postgres":
                first.execute(
                    psycopg.sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(
                        psycopg.sql.Identifier(database)
                    )
                )
        with psycopg.connect(
            host=host, port=_PORT, dbname=database, user=superuser, autocommit=True
        ) as connection:
            connection.execute(TABLES)
            if schema is not None:
                schema(connection)
    pgconf.make_standby(data_directory)


def clone(source: Path, target: Path, unprivileged: Unprivileged) -> None:
    """Copy the data directory `source`, whose server is shut down, to `target`: the standby's start.

    Raises:
        RefusedError: `source` runs, or `target` is not empty.
    """
    doing = f"cloning {source} to {target}"
    if (source / "postmaster.pid").exists():
        raise RefusedError(doing, "its server runs or was killed", "Stop it first, or use pg_basebackup")
    if target.exists() and any(target.iterdir()):
        raise RefusedError(doing, "the target is not empty", "Name an empty directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        target.rmdir()
    _run(["cp", "-a", "--reflink=auto", str(source), str(target)], doing)
    with suppress(FileNotFoundError):
        (target / pgconf.INCLUDED).unlink()
    shutil.rmtree(target / "pg_replslot", ignore_errors=True)
    (target / "pg_replslot").mkdir(mode=0o700)
    unprivileged.own(target)
    pgconf.make_standby(target)


def basebackup(
    target: Path, binaries: Path, unprivileged: Unprivileged, *, conninfo: str, slot: str | None = None
) -> None:
    """Copy a running primary to `target` with pg_basebackup; the slot must be there.

    Raises:
        FailedError: pg_basebackup failed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unprivileged.own(target.parent)
    command: list[str | Path] = [binaries / "pg_basebackup", "-D", target, "-d", conninfo, "-X", "stream"]
    command += ["--checkpoint=fast", *(["-S", slot] if slot is not None else [])]
    _run(unprivileged.command(*command), f"copying the primary to {target}")
    pgconf.make_standby(target)


def first_grant(vacant: Authority, instance: str) -> Authority:
    """Epoch 1 for `instance`: its agent takes the right over when it starts, and waits for its promotion."""
    return grant(vacant, Holder(instance, "bootstrap"))


class _Temporary:
    """The new server for a moment, on a Unix socket in its own directory, to nobody else."""

    def __init__(self, data: Path, binaries: Path, unprivileged: Unprivileged, *, sync: bool) -> None:
        self._data = data
        # A relative socket directory is as short as it can be, however deep the data directory lies.
        options = [
            "listen_addresses=",
            "unix_socket_directories=.",
            "autovacuum=off",
            f"port={_PORT}",
            f"fsync={'on' if sync else 'off'}",
        ]
        arguments = [part for option in options for part in ("-c", option)]
        self._command = unprivileged.command(binaries / "postgres", "-D", data, *arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._link: int | None = None

    def __enter__(self) -> str:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with suppress(OSError):
                if (self._data / "postmaster.pid").read_text().rstrip().endswith("ready"):
                    self._link = os.open(self._data, os.O_RDONLY | os.O_DIRECTORY)
                    return f"/proc/self/fd/{self._link}"
            time.sleep(0.005)
        self._process.kill()
        said = self._process.communicate()[1].decode(errors="replace").strip().splitlines()[-1:]
        raise FailedError(
            f"starting the new server in {self._data}", " ".join(said) or "no answer", "See its messages"
        )

    def __exit__(self, *_: object) -> None:
        assert self._process is not None  # noqa: S101 - entered
        if self._link is not None:
            os.close(self._link)
        self._process.send_signal(2)
        try:
            self._process.communicate(timeout=_START_SECONDS)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            raise FailedError(
                f"stopping the new server in {self._data}", "it does not stop", "Try again"
            ) from error


def _run(command: Sequence[str], doing: str) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_INITDB_SECONDS,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode != 0:
        said = why(done.stderr or done.stdout) or f"exit status {done.returncode}"
        raise FailedError(doing, said, "See the message; then try again")


def why(output: str) -> str:
    """The line of a PostgreSQL program's output that says why it failed, which seldom is its last: it cleans up after that."""
    lines = [line for line in output.splitlines() if line.strip()]
    told = [line for line in lines if _SERIOUS.search(line)]
    return (told or lines[-1:] or [""])[0].strip()
