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
WRITE_LAGS = """
SELECT extract(epoch FROM write_lag)::float8 FROM pg_stat_replication WHERE state = 'streaming'
"""
EPOCH_SINCE = """
SELECT (SELECT since FROM hmsdr_epoch WHERE instance = current_setting('cluster_name') AND epoch = (SELECT max(epoch) FROM hmsdr_epoch)),
       clock_timestamp()
"""
SLOTS = """
SELECT slot_name, slot_type, active, (restart_lsn - '0/0'::pg_lsn)::bigint, wal_status
FROM pg_replication_slots ORDER BY slot_name
"""
# A receiver goes on saying "streaming" for seconds after the wire was cut, while the lag seems to grow. One that hears anything
# at all (it asks after half of its timeout of 5 s) hears it more often than this.
LAG = """
SELECT coalesce(w.status = 'streaming' AND w.flushed_lsn >= pg_last_wal_replay_lsn()
                AND clock_timestamp() - w.last_msg_receipt_time < interval '3 seconds', false),
       greatest(0, coalesce(w.latest_end_lsn, pg_last_wal_receive_lsn()) - pg_last_wal_replay_lsn())::bigint,
       extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8, clock_timestamp()
FROM (SELECT 1) AS one LEFT JOIN pg_stat_wal_receiver AS w ON true
"""
COMMITS_AFTER = """
SELECT count(*) FILTER (WHERE pg_xact_commit_timestamp(x::text::xid) > %s)::bigint, bool_or(cut) AND
       min(pg_xact_commit_timestamp(x::text::xid)) > %s
FROM (SELECT (n %% 4294967296)::bigint AS x, newest - 1000000 > 3 AS cut
      FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS newest) AS s,
           generate_series(greatest(3, newest - 1000000), newest - 1) AS n) AS recent
WHERE x >= 3
"""
"""Commits after a moment, among the newest million of transactions; and whether there may be more. Needs track_commit_timestamp."""
HEARTBEAT_AGE = "SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM hmsdr_heartbeat WHERE id = 1"
HEARTBEAT = """
INSERT INTO hmsdr_heartbeat (id, instance, at) VALUES (1, %s, clock_timestamp())
ON CONFLICT (id) DO UPDATE SET instance = excluded.instance, at = excluded.at RETURNING at
"""
LEFT_RECOVERY = """
DO $$ BEGIN
    FOR step IN 1..100 LOOP
        EXIT WHEN NOT pg_is_in_recovery();
        PERFORM pg_sleep(0.001);
    END LOOP;
END $$
"""
"""Returns when it has left recovery, or after a tenth of a second: asked each millisecond from outside it would cost both sides more
than the promotion itself."""
EPOCH = "INSERT INTO hmsdr_epoch (epoch, instance, since) VALUES (%s, %s, clock_timestamp()) ON CONFLICT DO NOTHING"
SOURCE = """
SELECT (SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database),
       (SELECT ((('x' || min(substr(name, 9)))::bit(64)::bigint >> 32 << 32)
                + (('x' || right(min(substr(name, 9)), 8))::bit(32)::bigint
                   * pg_size_bytes(current_setting('wal_segment_size'))))
        FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'),
       current_setting('max_replication_slots')::int
"""
"""What a standby that is made anew, or was away, needs of its primary. With no more rights than pg_monitor has."""
INTEGRITY = """
SELECT (SELECT coalesce(sum(checksum_failures), 0)::bigint FROM pg_stat_database),
       (SELECT count(*) FROM pg_index WHERE NOT indisvalid)
"""
BACKUP_PROGRESS = """
SELECT least(1.0, backup_streamed::float8 / nullif(backup_total, 0))
FROM pg_stat_progress_basebackup ORDER BY pid DESC LIMIT 1
"""
HISTORY = """
SELECT tli, CASE WHEN tli = 1 THEN ''
                 ELSE convert_from(pg_read_binary_file('pg_wal/' || lpad(upper(to_hex(tli)), 8, '0') || '.history'),
                                   'UTF8') END
FROM (SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int) AS now (tli)
"""
"""With no more rights than pg_rewind needs."""
LOST_PREFIX = "hmsdr_lost_"
"""Begins the name of the slot from which lost rows are decoded; the epoch follows."""
_USABLE = """
plugin = 'test_decoding' AND wal_status IS DISTINCT FROM 'lost'
AND to_jsonb(s) ->> 'invalidation_reason' IS NULL AND coalesce(to_jsonb(s) ->> 'conflicting', 'false') = 'false'
AND confirmed_flush_lsn IS NOT NULL
"""
LOST_SLOT = f"""
SELECT slot_name, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint, database = current_database() AND {_USABLE}, active,
       (SELECT (r.replay_lsn - '0/0'::pg_lsn)::bigint FROM pg_replication_slots AS o
        JOIN pg_stat_replication AS r ON r.pid = o.active_pid WHERE o.slot_name = %s)
FROM pg_replication_slots AS s WHERE starts_with(slot_name, '{LOST_PREFIX}')
"""  # noqa: S608 - made of our own words
"""The slots of that kind, and up to where the standby that follows through the named slot has replayed."""
_DECODES = f"""
FROM pg_replication_slots AS s
WHERE starts_with(slot_name, '{LOST_PREFIX}') AND database = current_database() AND {_USABLE}
ORDER BY confirmed_flush_lsn, slot_name LIMIT 1
"""
LOST_SLOTS = f"SELECT slot_name, (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint {_DECODES}"
"""In an isolated copy: the slot that reaches back furthest."""
LOST_ROWS = f"""
SELECT (c.lsn - '0/0'::pg_lsn)::bigint, c.xid, c.data FROM (SELECT slot_name {_DECODES}) AS s,
LATERAL pg_logical_slot_peek_changes(s.slot_name, NULL, NULL, 'include-xids', '1', 'include-timestamp', '1',
                                     'skip-empty-xacts', '1') AS c
"""  # noqa: S608 - made of our own words
LOST_KEYS = """
SELECT format('%I.%I', n.nspname, c.relname), a.attname FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
WHERE (c.relreplident = 'd' AND i.indisprimary) OR (c.relreplident = 'i' AND i.indisreplident)
ORDER BY 1, a.attnum
"""
"""What tells the rows of each table apart."""
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
class LostSlot:
    """A slot from which lost rows could be decoded; LSNs in bytes of WAL."""

    name: str
    decodes_from: int | None
    usable: bool
    active: bool
    standby_has: int | None
    """Up to where the standby has replayed: always a record's end, unlike what it has received."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a standby is behind. ``seconds`` is the heartbeat's age, or that of the last replayed commit.

    ``streaming`` is true once the stream has reached what was replayed: a standby that has only just connected on a
    new timeline fetches the whole segment again, and is no use for a promotion before that. A stream that has been silent for
    seconds is none: the wire may be cut.
    """

    streaming: bool
    bytes: int | None
    seconds: float | None
    measured_at: datetime


@dataclass(frozen=True, slots=True)
class Source:
    """What a primary has to give: bytes of all its databases, its oldest WAL (an LSN in bytes), how many slots it may have."""

    size: int
    oldest_wal: int | None
    slots_at_most: int


@dataclass(frozen=True, slots=True)
class Integrity:
    """Damage that PostgreSQL has noticed: pages whose checksum failed, indexes that are invalid."""

    checksum_failures: int
    invalid_indexes: int
