"""PostgreSQL log sequence numbers as integers (bytes of WAL), and back. Pure."""

from __future__ import annotations


def parse_lsn(text: str) -> int:
    """Read ``"0/3000148"``.

    Raises:
        ValueError: not an LSN.
    """
    high, slash, low = text.partition("/")
    if not slash:
        msg = f"expected an LSN such as '0/3000148', found {text!r}"
        raise ValueError(msg)
    return (int(high, 16) << 32) | int(low, 16)


def format_lsn(lsn: int) -> str:
    """Write an LSN as PostgreSQL does."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
