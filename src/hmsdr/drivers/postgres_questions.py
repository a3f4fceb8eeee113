"""What PostgreSQL is asked, and what its answers are: the driver's statements and their typed rows. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

STATUS = """
SELECT r, (CASE WHEN r THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_flush_lsn() END
           - '0/0'::pg_lsn)::bigint,
       CASE WHEN r THEN greatest(c.timeline_id, (SELECT received_tli FROM pg_stat_wal_receiver))
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
       s.system_identifier, current_setting('cluster_name'), clock_timestamp()
FROM (SELECT CASE WHEN pg_is_in_recovery() THEN true ELSE false END AS r) AS q,
     pg_control_checkpoint() AS c, pg_control_system() AS s
"""
REPLICATION = """
SELECT application_name, host(client_addr), state, sync_state, (sent_lsn - '0/0'::pg_lsn)::bigint,
       (flush_lsn - '0/0'::pg_lsn)::bigint, (replay_lsn - '0/0'::pg_lsn)::bigint,
       extract(epoch FROM replay_lag)::float8
FROM pg_stat_replication
"""
SLOTS = """
SELECT slot_name, slot_type, active, (restart_lsn - '0/0'::pg_lsn)::bigint, wal_status
FROM pg_replication_slots ORDER BY slot_name
"""
LAG = """
SELECT coalesce(w.status = 'streaming' AND w.flushed_lsn >= pg_last_wal_replay_lsn(), false),
       greatest(0, coalesce(w.latest_end_lsn, pg_last_wal_receive_lsn()) - pg_last_wal_replay_lsn())::bigint,
       extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8, clock_timestamp()
FROM (SELECT 1) AS one LEFT JOIN pg_stat_wal_receiver AS w ON true
"""
HEARTBEAT_AGE = "SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM hmsdr_heartbeat WHERE id = 1"
HEARTBEAT = """
INSERT INTO hmsdr_heartbeat (id, instance, at) VALUES (1, %s, clock_timestamp())
ON CONFLICT (id) DO UPDATE SET instance = excluded.instance, at = excluded.at RETURNING at
"""
EPOCH = "INSERT INTO hmsdr_epoch (epoch, instance, since) VALUES (%s, %s, clock_timestamp()) ON CONFLICT DO NOTHING"
INTEGRITY = """
SELECT (SELECT coalesce(sum(checksum_failures), 0)::bigint FROM pg_stat_database),
       (SELECT count(*) FROM pg_index WHERE NOT indisvalid)
"""
COUNTED_ROWS = 1_000_000
"""A count goes no further: after a failover nobody waits for a sequential scan of everything."""


@dataclass(frozen=True, slots=True)
class PostgresStatus:
    """What a server said about itself; all but `reachable` is None when it did not answer.

    ``lsn`` is what is flushed (primary) or replayed (standby), in bytes of WAL.
    """

    reachable: bool
    in_recovery: bool | None = None
    lsn: int | None = None
    timeline: int | None = None
    system_identifier: int | None = None
    cluster_name: str | None = None
    server_time: datetime | None = None
    found: str = ""
    """Why it is not reachable, in words."""


@dataclass(frozen=True, slots=True)
class Follower:
    """A row of pg_stat_replication; LSNs in bytes of WAL, lag in seconds."""

    name: str
    address: str | None
    state: str
    sync_state: str
    sent_lsn: int | None
    flush_lsn: int | None
    replay_lsn: int | None
    replay_lag_seconds: float | None


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot; ``restart_lsn`` in bytes of WAL."""

    name: str
    kind: str
    active: bool
    restart_lsn: int | None
    wal_status: str | None


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a standby is behind. ``seconds`` is the heartbeat's age, or that of the last replayed commit.

    ``streaming`` is true once the stream has reached what was replayed: a standby that has only just connected on a
    new timeline fetches the whole segment again, and is no use for a promotion before that.
    """

    streaming: bool
    bytes: int | None
    seconds: float | None
    measured_at: datetime


@dataclass(frozen=True, slots=True)
class Integrity:
    """Damage that PostgreSQL has noticed: pages whose checksum failed, indexes that are invalid."""

    checksum_failures: int
    invalid_indexes: int
