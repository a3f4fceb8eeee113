"""Damage done to a PostgreSQL's files on purpose: bytes spoilt, or items swapped and the page's checksum made right again."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

SIZE = 8192
_SEGMENT_BLOCKS = 131072
_LANES = 32
_PRIME = 16777619
_BASES = (
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
)  # fmt: skip


def checksum(page: bytes, block: int) -> int:
    """As PostgreSQL's checksum_impl.h computes it, the field itself taken as nought."""
    data = struct.unpack(f"<{SIZE // 4}I", page[:8] + b"\0\0" + page[10:])
    sums = list(_BASES)

    def mix(value: int, word: int) -> int:
        mixed = value ^ word
        return ((mixed * _PRIME) & 0xFFFFFFFF) ^ (mixed >> 17)

    for row in range(0, len(data), _LANES):
        sums = [mix(value, data[row + lane]) for lane, value in enumerate(sums)]
    for _ in range(2):
        sums = [mix(value, 0) for value in sums]
    result = 0
    for value in sums:
        result ^= value
    return ((result ^ block) % 65535) + 1


def change(path: Path, block: int, spoil: Callable[[bytearray], None], *, honest: bool) -> None:
    """Change a page on disk; `honest`: and let its checksum say that all is well."""
    with path.open("r+b") as file:
        file.seek(block * SIZE)
        page = bytearray(file.read(SIZE))
        assert int.from_bytes(page[8:10], "little") == checksum(bytes(page), block), (
            "not how PostgreSQL does it"
        )
        spoil(page)
        if honest:
            page[8:10] = checksum(bytes(page), block).to_bytes(2, "little")
        file.seek(block * SIZE)
        file.write(page)


def garbage(page: bytearray) -> None:
    """Bytes in the middle of its data."""
    page[4000:4040] = b"\xa5" * 40


def swapped_items(page: bytearray) -> None:
    """Two items of an index in each other's place: its order is wrong."""
    one, other = slice(24 + 4 * 5, 24 + 4 * 6), slice(24 + 4 * 20, 24 + 4 * 21)
    page[one], page[other] = page[other], page[one]
