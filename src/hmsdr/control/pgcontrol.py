"""Where a database that was shut down in order stopped, read from its control file itself: writers wait for this.

`pg_controldata` says the same and much more, at the cost of starting two programs. Only what has stood in the same place since
PostgreSQL 11 is read, and only when the file's checksum is right; anything else is `pg_controldata`'s to read. Reads one file.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

_HEAD = struct.Struct("=QII i4x q Q QI")
"""System identifier, version of the control file, of the catalogue, state, time, checkpoint; its redo and timeline."""
_VERSIONS = range(1100, 1900)
_SHUT_DOWN = 1
_LONGEST = 512
"""What is written of it at once, so that it is never torn."""
_CRC_FROM = 200
_POLYNOMIAL = 0x82F63B78


@dataclass(frozen=True, slots=True)
class ShutDown:
    """LSNs in bytes of WAL."""

    system_identifier: int
    checkpoint: int
    redo: int
    timeline: int


def shut_down(directory: Path) -> ShutDown | None:
    """What the control file of the data directory says, if it says "shut down" (a primary, in order) in a way known here."""
    try:
        with (directory / "global" / "pg_control").open("rb") as file:
            content = file.read(_LONGEST)
    except OSError:
        return None
    if len(content) < _LONGEST or not _intact(content):
        return None
    system, version, _, state, _, checkpoint, redo, timeline = _HEAD.unpack_from(content)
    if version not in _VERSIONS or state != _SHUT_DOWN:
        return None
    return ShutDown(system, checkpoint, redo, timeline)


def _intact(content: bytes) -> bool:
    """Whether the CRC-32C of all before it stands somewhere behind the fields, and nothing but zeros behind that."""
    crc = 0xFFFFFFFF
    for place, byte in enumerate(content):
        if place >= _CRC_FROM and place % 4 == 0:
            stored = int.from_bytes(content[place : place + 4], sys.byteorder)
            if stored == crc ^ 0xFFFFFFFF and not any(content[place + 4 :]):
                return True
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return False


def _entry(number: int) -> int:
    for _ in range(8):
        number = (number >> 1) ^ (_POLYNOMIAL if number & 1 else 0)
    return number


_TABLE = tuple(_entry(number) for number in range(256))
