"""A bare primary and its physical standby on loopback, filled with a table of a wanted size: what single parts are measured on.

PostgreSQL's own programs and settings as an agent of ours gives them, no agent, no archive, nothing beside them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import psycopg

from bench.patroni import PARAMETERS, free_ports
from hmsdr.control import programs
from hmsdr.control.unprivileged import choose
from hmsdr.errors import FailedError
from hmsdr.lab.layout import LAB_ENV, Endpoint
from hmsdr.lab.processes import DIE_WITH_PARENT, sweep

HOST = "127.0.0.1"
MIB = 1 << 20
_UP_SECONDS = 60.0
_COPY_SECONDS = 600.0
_STOP_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_BATCH = 20_000
_TABLE = """
CREATE TABLE IF NOT EXISTS visits (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, patient uuid NOT NULL, ward int NOT NULL, at timestamptz NOT NULL,
    urgent boolean NOT NULL, cost numeric(12, 2) NOT NULL, complaint text NOT NULL, notes text
)
"""
_FILL = """
INSERT INTO visits (patient, ward, at, urgent, cost, complaint, notes)
SELECT gen_random_uuid(), n %% 40, now() - n * interval '1 minute', n %% 7 = 0, n %% 9973 / 7.0, 'complaint number ' || n,
       CASE WHEN n %% 3 = 0 THEN NULL ELSE repeat(md5(n::text), 4) END
FROM generate_series(1, %s) AS n
"""


class Pair:
    """Two servers below `place`; ``primary`` writes and ``standby`` follows it."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._name = f"hmsdr-bench-{place.name}"
        self._unprivileged = choose("nobody" if os.geteuid() == 0 else None)
        self._servers: list[subprocess.Popen[bytes]] = []
        self.primary, self.standby = (Endpoint(HOST, port) for port in free_ports(2))

    def up(self) -> None:
        """Start both; returns when the standby streams.

        Raises:
            FailedError: it does not come up.
        """
        self._place.mkdir(parents=True, mode=0o755)
        for name in ("primary", "standby"):
            (self._place / name).mkdir(mode=0o700)
        self._unprivileged.own(self._place)
        self._run("initdb", "-D", self._data("primary"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "-k")
        self._start("primary", self.primary)
        copied = ("-D", self._data("standby"), "-h", HOST, "-p", self.primary.port, "-U", "postgres")
        self._run("pg_basebackup", *copied, "-R", "-c", "fast", "-X", "stream", "-C", "-S", "standby")
        self._start("standby", self.standby)

    def fill(self, size: int) -> int:
        """Write until the table of visits has `size` MiB at least, and both have all of it; rows of it."""
        with connect(self.primary) as session:
            session.execute(_TABLE)
            while _bytes(session) < size * MIB:
                session.execute(_FILL, (_BATCH,))
            session.execute("VACUUM (ANALYZE) visits")
            session.execute("CHECKPOINT")
            (rows,) = session.execute("SELECT count(*) FROM visits").fetchone() or (0,)
        self.settle()
        return int(rows)

    def settle(self) -> None:
        """Until the standby has replayed all that the primary has written.

        Raises:
            FailedError: not within the deadline.
        """
        with connect(self.primary) as session:
            (lsn,) = session.execute("SELECT pg_current_wal_insert_lsn()").fetchone() or (None,)
        ends = time.monotonic() + _COPY_SECONDS
        with connect(self.standby) as session:
            while session.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (lsn,)).fetchone() != (
                True,
            ):
                if time.monotonic() > ends:
                    raise FailedError("waiting for the standby", f"not at {lsn} yet", "Measure again")
                time.sleep(_LOOK_SECONDS)

    def down(self) -> None:
        """Stop both, and remove their directory."""
        for server in reversed(self._servers):
            server.terminate()
        for server in reversed(self._servers):
            try:
                server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        sweep(self._name, self._place, seconds=_STOP_SECONDS)
        shutil.rmtree(self._place, ignore_errors=True)

    def _data(self, name: str) -> Path:
        return self._place / name / "data"

    def _run(self, program: str, *words: object) -> None:
        command = self._unprivileged.command(programs.postgres_bin() / program, *map(str, words))
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COPY_SECONDS, check=False, cwd="/"
        )
        if done.returncode:
            raise FailedError(f"running {program}", done.stderr.strip()[-300:], "Measure again")

    def _start(self, name: str, endpoint: Endpoint) -> None:
        settings = {
            **PARAMETERS,
            "port": str(endpoint.port),
            "listen_addresses": HOST,
            "cluster_name": name,
            "hot_standby": "on",
            "unix_socket_directories": str(self._place / name),
        }
        chosen = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        command = self._unprivileged.command(
            programs.postgres_bin() / "postgres", "-D", self._data(name), *chosen
        )
        with (self._place / f"{name}.log").open("ab") as log:
            server = subprocess.Popen(
                [*DIE_WITH_PARENT, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, LAB_ENV: self._name},
            )
        self._servers.append(server)
        ends = time.monotonic() + _UP_SECONDS
        while not _answers(endpoint):
            if server.poll() is not None or time.monotonic() > ends:
                said = (self._place / f"{name}.log").read_text()[-300:]
                raise FailedError(f"starting the {name}", said, "Measure again")
            time.sleep(_LOOK_SECONDS)


def connect(endpoint: Endpoint) -> psycopg.Connection:
    """A session of the server's database ``postgres``; each statement is a transaction."""
    return psycopg.connect(
        f"host={endpoint.host} port={endpoint.port} user=postgres dbname=postgres connect_timeout=5",
        autocommit=True,
    )


def _answers(endpoint: Endpoint) -> bool:
    try:
        with connect(endpoint):
            return True
    except psycopg.Error:
        return False


def _bytes(session: psycopg.Connection) -> int:
    (size,) = session.execute("SELECT pg_table_size('visits')").fetchone() or (0,)
    return int(size)
