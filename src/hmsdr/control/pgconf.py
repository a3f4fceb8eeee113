"""The files by which PostgreSQL is told what to be: its settings, and the signal that makes it a standby.

Settings stand in a file of ours that postgresql.conf includes, written again before every start, because
pg_rewind and pg_basebackup bring the other server's files along. Nothing here starts or stops a server.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hmsdr.control.state import Upstream, sync_directory
from hmsdr.control.walpush import STOP_FILE
from hmsdr.playbook.topology import PostgresInstance

INCLUDED = "hmsdr.conf"
_INCLUDE = f"include_if_exists = '{INCLUDED}'"
_SIGNAL = "standby.signal"
"""PostgreSQL removes it when recovery ends, before the first write is taken."""

_FIXED: Mapping[str, str] = {
    "wal_level": "logical",
    "hot_standby": "on",
    "wal_log_hints": "on",
    "track_commit_timestamp": "on",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "wal_keep_size": "256MB",
    "max_slot_wal_keep_size": "8GB",
    "synchronous_commit": "on",
    "restart_after_crash": "off",  # rule 6: only the agent starts it
    "recovery_target_timeline": "latest",
    "wal_retrieve_retry_interval": "200ms",
    "wal_receiver_status_interval": "1s",
    # A cut wire swallows packets and tells nobody. Both ends give a silent stream up soon, so that a standby streams again within
    # seconds once it is joined: TCP alone would go on waiting about as long as the cut lasted.
    "wal_receiver_timeout": "5s",
    "wal_sender_timeout": "5s",
    "tcp_user_timeout": "5s",
    # A client that died behind a cut wire is silent for good, and may hold a transaction: the kernel has to ask it.
    "tcp_keepalives_idle": "10s",
    "tcp_keepalives_interval": "1s",
    "tcp_keepalives_count": "5",
    "max_connections": "200",
    "checkpoint_timeout": "1min",  # a fresh start point keeps crash recovery and the look for the end of WAL short
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %e ",  # with its SQLSTATE: what tells of damage is known by it, in any language
    "lc_messages": "C",
    "logging_collector": "off",
    "log_destination": "stderr",
}


def settings(
    instance: PostgresInstance,
    *,
    listen: str,
    sockets: Path | None,
    upstream: Upstream | None,
    archive_command: str = "",
    archive_every: float = 0.0,
) -> dict[str, str]:
    """All settings of `instance`, listening on the address `listen` and, if given, in the directory `sockets`.

    With an `archive_command` it archives, a file at least each `archive_every` seconds when anything is written; as a standby, too.
    """
    chosen = {
        **_FIXED,
        "listen_addresses": listen,
        "port": str(instance.port),
        "unix_socket_directories": "" if sockets is None else str(sockets),
        "cluster_name": instance.instance,
        "primary_conninfo": "",
        "primary_slot_name": "",
        "archive_mode": "always" if archive_command else "off",
        "archive_command": archive_command,
        "archive_timeout": f"{max(1, round(archive_every))}s" if archive_command else "0",
    }
    if upstream is not None:
        chosen["primary_conninfo"] = conninfo(instance, upstream)
        chosen["primary_slot_name"] = upstream.slot
    return chosen


def conninfo(instance: PostgresInstance, upstream: Upstream) -> str:
    """How `instance` reaches the primary: it gives up on a silent one within seconds."""
    password = instance.password
    parts = {
        "host": upstream.host,
        "port": str(upstream.port),
        "user": instance.user,
        "application_name": instance.instance,
        "connect_timeout": "3",
        "keepalives_idle": "2",
        "keepalives_interval": "1",
        "keepalives_count": "3",
        "tcp_user_timeout": "5000",
        **({"password": password.get_secret_value()} if password is not None else {}),
    }
    return " ".join(f"{key}={_conninfo_value(value)}" for key, value in parts.items())


def write_settings(data_directory: Path, chosen: Mapping[str, str]) -> None:
    """Write our settings and make sure that they are read, and that ALTER SYSTEM does not undo them."""
    ours = "# Written by hmsdr before every start; changes here are lost.\n" + "".join(
        f"{key} = '{_quoted(value)}'\n" for key, value in chosen.items()
    )
    target = data_directory / INCLUDED
    target.write_text(ours)
    target.chmod(0o600)  # it may hold the replication password
    _like_directory(target)
    main = data_directory / "postgresql.conf"
    text = main.read_text()
    if _INCLUDE not in text.splitlines():
        main.write_text(f"{text.rstrip()}\n{_INCLUDE}\n")
    automatic = data_directory / "postgresql.auto.conf"
    with suppress(FileNotFoundError):
        lines = automatic.read_text().splitlines()
        kept = [line for line in lines if line.partition("=")[0].strip() not in chosen]
        if kept != lines:
            automatic.write_text("".join(f"{line}\n" for line in kept))


def stop_archiving(data_directory: Path) -> None:
    """A server that is being stopped does not wait for its archive: what is not archived is archived after its next start."""
    with suppress(OSError):
        (data_directory / STOP_FILE).touch(mode=0o600)


def allow_archiving(data_directory: Path) -> None:
    """Archiving goes on: it starts, or goes on running."""
    (data_directory / STOP_FILE).unlink(missing_ok=True)


def make_standby(data_directory: Path, *, durable: bool = True) -> None:
    """Whoever starts this data directory gets a standby (rule 6). Harmless while its server runs."""
    path = data_directory / _SIGNAL
    path.touch(mode=0o600)
    _like_directory(path)
    if durable:
        sync_directory(data_directory)


def allow_writable(data_directory: Path) -> None:
    """The next start is writable; the caller has a live lease and calls `make_standby` right after it."""
    (data_directory / _SIGNAL).unlink(missing_ok=True)


def is_standby(data_directory: Path) -> bool:
    """Whether the next start gives a standby."""
    return (data_directory / _SIGNAL).exists()


def _like_directory(path: Path) -> None:
    """PostgreSQL must own its files also when root, the agent, wrote them."""
    if os.geteuid() == 0:
        parent = path.parent.stat()
        os.chown(path, parent.st_uid, parent.st_gid)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def _conninfo_value(value: str) -> str:
    plain = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{plain}'"
