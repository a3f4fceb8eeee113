"""Reading a packed archive to its end without unpacking it: its digest, and whether every member may be unpacked at all.

Whoever can write to a bucket can write archives. Nothing is written here.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

Judge = Callable[[tarfile.TarInfo], str]
"""What speaks against a member, in words; empty when nothing does."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was read. ``problem`` in words; empty when there is none."""

    sha256: str
    unpacked: int
    problem: str


class _Hashing(io.RawIOBase):
    """The pieces as a file that is read once, hashed on the way."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        if not self._left:
            self._left = next(self._chunks, b"")
            self.digest.update(self._left)
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def drain(self) -> None:
        """Hash what nobody asked for."""
        for chunk in self._chunks:
            self.digest.update(chunk)


def look(chunks: Iterator[bytes], *, limit: int, judge: Judge) -> Looked:
    """Read a tar archive, packed or not.

    Args:
        chunks: its bytes.
        limit: so many bytes may come out of it; a bomb has more.
        judge: asked for each member, after names and kinds were checked.
    """
    source = _Hashing(chunks)
    total, problem = 0, ""
    try:
        with tarfile.open(fileobj=io.BufferedReader(source), mode="r|*") as archive:
            for member in archive:
                total += member.size
                problem = unsafe(member) or judge(member)
                if total > limit:
                    problem = (
                        f"more than {limit} bytes come out of it: it says less, or is made to fill the disk"
                    )
                if problem:
                    break
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        problem = f"it cannot be unpacked: {error or type(error).__name__}"
    source.drain()
    return Looked(source.digest.hexdigest(), total, problem)


def unsafe(member: tarfile.TarInfo) -> str:
    """Whether it would be written outside the directory, or is something that is no file."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        return f"its member {member.name!r} would be written outside of where it belongs"
    if not (member.isreg() or member.isdir()):
        return f"its member {member.name!r} is a link or a device, and may not be one"
    return ""
