"""PostgreSQL's archive_command: one file of WAL into the region's bucket with Barman, once, and read back. Run as a script.

``python walpush.py SETTINGS FILE``. It runs as the database's own user, imports nothing of ours and gives
way to everything else on the machine. A file that is there already with the same content is done; one with another content is never
overwritten: two databases would be archiving into one place. Exit status 0 only when the file was read back whole. It ends at
once (status 143, which ends the archiver too) when the database is to stop: nobody waits for an archive then.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

STOP_FILE = "hmsdr.archive-stop"
"""In the data directory while the database is being stopped."""
STOPPED = 143
_FAILED = 1
_NICE = 10
_POLL_SECONDS = 0.02
_WAL = re.compile(r"^([0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history)$")
_SEGMENT_NAME = 24
_LONG_HEADER = struct.Struct("<8xQ16xI")
"""Of the first page of a file of WAL: its address, and the size of such a file. Little-endian, as every machine this runs on."""
_MEMORY_LIMIT = 1 << 30


_CHILDREN: list[subprocess.Popen[bytes]] = []


class CannotArchiveError(Exception):
    """The file is not in the archive, and why."""


def main(arguments: list[str]) -> int:
    """Archive the file that is named; gives the exit status."""
    settings: dict[str, Any] = json.loads(Path(arguments[1]).read_text())
    file = Path(arguments[2])
    os.nice(_NICE)
    threading.Thread(target=_end_with_the_database, daemon=True).start()
    try:
        return _archive(settings, file)
    except CannotArchiveError as error:
        sys.stderr.write(f"hmsdr: archiving {file.name}: {error}\n")
    except Exception as error:  # noqa: BLE001 - whatever it is, the file stays with PostgreSQL, which tries again
        sys.stderr.write(f"hmsdr: archiving {file.name}: {type(error).__name__}: {error}\n")
    return STOPPED if Path(STOP_FILE).exists() else _FAILED


def _end_with_the_database() -> None:
    """Whatever it waits for, it ends when the database is to stop."""
    while not Path(STOP_FILE).exists():
        time.sleep(_POLL_SECONDS)
    for child in _CHILDREN:
        child.kill()
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=1.0)
    os._exit(STOPPED)


def _archive(settings: dict[str, Any], file: Path) -> int:
    if _WAL.fullmatch(file.name) is None:
        msg = "that is no name of a file of WAL"
        raise CannotArchiveError(msg)
    content = file.read_bytes()
    if len(file.name) == _SEGMENT_NAME:
        _check_segment(file.name, content)
    waiting = _waiting() * len(content)
    if waiting > settings["queue"] and len(file.name) == _SEGMENT_NAME:
        # A full disk would stop the hospital; a gap is mended by the next base backup, and `backup verify` tells of it.
        sys.stderr.write(f"hmsdr: {file.name} is GIVEN UP: {waiting >> 20} MiB of WAL wait for the archive\n")
        return 0
    store = _Store(settings)
    if (stored := store.read(file.name)) is None:
        _upload(settings, file)
        stored = store.read(file.name)
    if stored is None:
        msg = f"it is not in {store.address(file.name)} after it was written there"
        raise CannotArchiveError(msg)
    if stored != content:
        msg = (
            f"{store.address(file.name)} holds something else under this name: another database archives there, or the "
            "object is damaged. Nothing was overwritten. Find out which; then move the object away"
        )
        raise CannotArchiveError(msg)
    return 0


def _waiting() -> int:
    """How many files wait to be archived; PostgreSQL starts us in its data directory."""
    try:
        with os.scandir("pg_wal/archive_status") as entries:
            return sum(entry.name.endswith(".ready") for entry in entries)
    except OSError:
        return 0


def _check_segment(name: str, content: bytes) -> None:
    """A whole file of WAL begins with its own address and size (XLogLongPageHeader)."""
    if len(content) < _LONG_HEADER.size:
        msg = f"it has only {len(content)} bytes"
        raise CannotArchiveError(msg)
    address, size = _LONG_HEADER.unpack_from(content)
    if len(content) != size:
        msg = f"it has {len(content)} bytes, and says that it should have {size}"
        raise CannotArchiveError(msg)
    number = int(name[8:16], 16) * ((1 << 32) // size) + int(name[16:24], 16)
    if address != number * size:
        msg = f"it says that it is file {address // size}, and its name says {number}"
        raise CannotArchiveError(msg)


class _Store:
    """The bucket, read."""

    def __init__(self, settings: dict[str, Any]) -> None:
        # Paid once, and not at all when the database stops; boto3 is a layer above it that would cost a quarter more for each file.
        from botocore.config import Config  # noqa: PLC0415
        from botocore.session import get_session  # noqa: PLC0415

        environment = settings["environment"]
        self._client: Any = get_session().create_client(
            "s3",
            region_name=environment.get("AWS_DEFAULT_REGION"),
            endpoint_url=settings["endpoint"],
            aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
            config=Config(connect_timeout=3, read_timeout=30, retries={"total_max_attempts": 2}),
        )
        self._bucket, self._prefix = settings["bucket"], f"{settings['prefix']}{settings['server']}/wals/"

    def _key(self, name: str) -> str:
        directory = f"{name[:16]}/" if len(name) >= _SEGMENT_NAME else ""  # Barman's own layout
        return f"{self._prefix}{directory}{name}.gz"

    def address(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._key(name)}"

    def read(self, name: str) -> bytes | None:
        """What the archive has under `name`; None when it has nothing."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        try:
            body = self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        try:
            with gzip.open(io.BytesIO(body.read())) as unpacked:
                return unpacked.read(_MEMORY_LIMIT)
        except (OSError, EOFError):
            return b""  # it is there and cannot be read: not what was to be written


def _upload(settings: dict[str, Any], file: Path) -> None:
    """Have Barman write it."""
    command = [settings["program"], *settings["options"]]
    command += [f"s3://{settings['bucket']}/{settings['prefix'].rstrip('/')}", settings["server"], str(file)]
    environment = {**os.environ, **settings["environment"], "TZ": "UTC"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
    )
    _CHILDREN.append(process)
    try:
        _, errors = process.communicate(timeout=settings["deadline"])
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        msg = f"Barman did not end within {settings['deadline']:g} s"
        raise CannotArchiveError(msg) from None
    if process.returncode != 0:
        said = errors.decode(errors="replace").strip().splitlines()[-1:]
        msg = f"Barman ended with {process.returncode}: {' '.join(said)}"
        raise CannotArchiveError(msg)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
