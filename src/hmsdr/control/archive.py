"""Where a database's WAL goes: what the archive command is told, and the command itself. It archives nothing itself.

The settings file may hold a key of the object store: it is readable by the database's user only, and stands beside the
agent's state, never in the data directory, which is copied and backed up.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from hmsdr.control import walpush
from hmsdr.control.unprivileged import Unprivileged
from hmsdr.errors import RefusedError
from hmsdr.playbook.model import Playbook

SETTINGS = "archive.json"
BARMAN_PACKAGES = (
    "Barman's cloud tools (`uv sync --extra backup`, or the package barman-cli-cloud, 3.15 or newer)"
)
_DEADLINE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Archive:
    """Where the WAL of one region's server goes, and how. Durations in seconds."""

    bucket: str
    prefix: str
    server: str
    compression: str
    kms_key: str | None
    endpoint: str | None
    environment: dict[str, str]
    """What the object store's client finds in its environment: region and, where the playbook names them, keys."""
    every: float
    """So long a file may stay unfinished."""
    queue: int
    """Bytes of WAL that may wait; beyond it files are given up."""

    @property
    def base_options(self) -> list[str]:
        """What Barman is told when it writes a base backup."""
        return [*self._options, *(["--gzip"] if self.compression == "gzip" else [])]

    @property
    def wal_options(self) -> list[str]:
        """What it is told when it writes WAL: always packed, since most files are hardly full, and fast."""
        return [*self._options, "--gzip", "--compression-level", "1"]

    @property
    def _options(self) -> list[str]:
        options = [] if self.endpoint is None else ["--endpoint-url", self.endpoint]
        return options + ([] if self.kms_key is None else ["-e", "aws:kms", "--sse-kms-key-id", self.kms_key])

    @property
    def url(self) -> str:
        """The bucket and prefix, as Barman takes it."""
        return f"s3://{self.bucket}/{self.prefix.rstrip('/')}"


def of_region(playbook: Playbook, region: str, *, bucket: str | None = None) -> Archive:
    """The archive of the server of `region`, in `bucket` instead of its own if that is given."""
    where, policy, aws = playbook.regions[region].backups, playbook.backups, playbook.aws
    environment = {"AWS_DEFAULT_REGION": aws.region}
    if aws.access_key_id is not None and aws.secret_access_key is not None:
        environment |= {
            "AWS_ACCESS_KEY_ID": aws.access_key_id.get_secret_value(),
            "AWS_SECRET_ACCESS_KEY": aws.secret_access_key.get_secret_value(),
        }
    return Archive(
        bucket=bucket or where.bucket,
        prefix=where.prefix,
        server=policy.server,
        compression=policy.compression,
        kms_key=policy.kms_key,
        endpoint=aws.endpoint_url,
        environment=environment,
        every=policy.wal_every.total_seconds(),
        queue=policy.wal_queue,
    )


def program(name: str) -> str:
    """Where one of Barman's programs is: beside our interpreter, else on PATH.

    Raises:
        RefusedError: it is nowhere.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise RefusedError(
            f"looking for {name}", "it is not installed", f"Install {BARMAN_PACKAGES} where the database runs"
        )
    return found


def prepare(archive: Archive, directory: Path, unprivileged: Unprivileged) -> str:
    """Write the settings into `directory`; gives the text of PostgreSQL's archive_command.

    Args:
        archive: where the WAL goes.
        directory: the agent's state directory.
        unprivileged: whom the database runs as.

    Raises:
        RefusedError: Barman is not installed.
    """
    target = directory / SETTINGS
    content = {
        "program": program("barman-cloud-wal-archive"),
        "options": archive.wal_options,
        "bucket": archive.bucket,
        "prefix": archive.prefix,
        "server": archive.server,
        "endpoint": archive.endpoint,
        "environment": archive.environment,
        "deadline": _DEADLINE_SECONDS,
        "queue": archive.queue,
    }
    try:
        _write(target, json.dumps(content, indent=1), unprivileged)
    except OSError:
        if not target.exists():  # a full disk: what an earlier life wrote serves on
            raise
    words = [sys.executable, "-I", walpush.__file__, str(target)]
    # PostgreSQL's own % stands for something; and the check without an interpreter costs a stop two milliseconds.
    command = " ".join(shlex.quote(word).replace("%", "%%") for word in words)
    return f"if [ -e {walpush.STOP_FILE} ]; then exit {walpush.STOPPED}; fi; exec {command} %p"


def _write(target: Path, text: str, unprivileged: Unprivileged) -> None:
    """Replace the file whole; nobody but the database's user may read it."""
    part = target.with_name(f"{target.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    if unprivileged.owner is not None:
        os.chown(part, *unprivileged.owner)
    part.replace(target)
