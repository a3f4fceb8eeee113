"""Signs of damage that an agent has seen at its database, kept over its lives: what, where, since when, never content.

The server's log is followed from where the last look ended. It notes and forgets by the rules of `hmsdr.decide.soundness`;
what follows from a sign is decided elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hmsdr.control.logs import log
from hmsdr.control.state import write_durably
from hmsdr.decide.soundness import MENDED_BY_A_CLEAN_CHECK, DamageKind, Sign

_MOST = 20
"""Signs that are kept: with so many, more say nothing new."""
_READ = 4 * 1024 * 1024
_WORDS = 160
_LINE = re.compile(rb"^\S+ \S+ \S+ \[\d+\] ([0-9A-Z]{5}) ([A-Z]+):  (.*)$")
"""As `log_line_prefix` in `hmsdr.control.pgconf` makes them."""
_TOLD = frozenset({b"LOG", b"WARNING", b"ERROR", b"FATAL", b"PANIC"})
_INDEX_CORRUPTED = "XX002"
_CORRUPTED = (b"XX001", b"XX002")
_EXHAUSTED = b"53"
"""SQLSTATEs of a full disk or memory: a PANIC for that is no damage."""
_PAGE = re.compile(rb'invalid page in block (\d+) of relation "?([\w/]+)"?')


@dataclass(frozen=True, slots=True)
class Place:
    """How far the log was read: which file (inode), and where in it."""

    inode: int
    offset: int


@dataclass(slots=True)
class _Kept:
    signs: list[Sign] = field(default_factory=list)
    log: Place | None = None
    data: int | None = None
    """The data directory that the signs are of, by the inode of its PG_VERSION."""
    checked_at: str | None = None
    checked_lsn: int | None = None
    checked_timeline: int | None = None
    said: str = "not checked yet"
    """What became of the last check, in words."""
    whole: bool = False
    """The last check, whatever it found, looked at everything."""
    forgiven: int = 0
    """Checksum failures by PostgreSQL's counter, which only grows, that were cleared."""


class DamageBook:
    """The file that keeps the signs, and the eyes on the server's log.

    Args:
        path: where they are kept; a file that cannot be read counts as none, and is said.
        server_log: PostgreSQL's log.
        data_directory: whose damage it is.
    """

    def __init__(self, path: Path, server_log: Path, data_directory: Path) -> None:
        self._path = path
        self._log = server_log
        self._data = data_directory
        self._kept = _load(path)
        if self._kept.log is None:
            self._kept.log = _end(server_log)  # what was there before us says nothing of now

    @property
    def signs(self) -> tuple[Sign, ...]:
        """Those that stand."""
        return tuple(self._kept.signs)

    def note(self, kind: DamageKind, where: str, evidence: str, lsn: int | None) -> None:
        """A sign was seen; one that is known keeps its beginning."""
        known = any((sign.kind, sign.where) == (kind, where) for sign in self._kept.signs)
        if known or len(self._kept.signs) >= _MOST:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._kept.signs.append(Sign(kind, where, now, evidence[:_WORDS], lsn))
        log("damage.seen", level="error", kind=kind, where=where, found=evidence[:_WORDS])
        self._save()

    def count(self, failures: int, lsn: int | None) -> None:
        """PostgreSQL counted so many checksum failures; those that were cleared are no sign."""
        if failures < self._kept.forgiven:  # its counters began anew
            self._kept.forgiven = 0
            self._save()
        if failures > self._kept.forgiven:
            words = "PostgreSQL counts pages whose checksum failed"
            self.note(DamageKind.CHECKSUM, "database", words, lsn)

    def clear(self, signs: Iterable[Sign], failures: int) -> None:
        """Forget `signs`, which a person had cleared after checks; `failures` is PostgreSQL's counter now.

        Raises:
            OSError: it could not be made durable: they stand.
        """
        before = self._kept.signs, self._kept.forgiven
        known = {(sign.kind, sign.where, sign.since) for sign in signs}
        kept = [sign for sign in self._kept.signs if (sign.kind, sign.where, sign.since) not in known]
        self._kept.signs, self._kept.forgiven = kept, failures
        try:
            write_durably(self._path, json.dumps(asdict(self._kept), indent=1).encode())
        except OSError:
            self._kept.signs, self._kept.forgiven = before
            raise

    def read_log(self, lsn: int | None) -> None:
        """Note what the server's log says since the last look; `lsn` is where the database is now."""
        before = self._kept.log
        for line in self._new_lines():
            if (found := damage_in(line)) is not None:
                self.note(*found, lsn)
        if self._kept.log != before:
            self._save()

    def checked(self, *, began: str, lsn: int | None, timeline: int | None) -> None:
        """A complete check that began then found nothing: what it disproves is forgotten."""
        kept = self._kept
        kept.signs = [
            sign for sign in kept.signs if sign.kind not in MENDED_BY_A_CLEAN_CHECK or sign.since >= began
        ]
        kept.checked_at, kept.checked_lsn, kept.checked_timeline, kept.said = began, lsn, timeline, "clean"
        kept.whole = True
        self._save()

    def unchecked(self, words: str, *, whole: bool = False) -> None:
        """A check found something, or did not come to its end; `whole`: it looked at everything all the same."""
        self._kept.said, self._kept.whole = words[:_WORDS], whole
        if words.startswith("damage"):
            self._kept.checked_lsn = self._kept.checked_timeline = None
        self._save()

    def look_at_data(self, lsn: int | None) -> None:
        """Another data directory, or one that was set back, is not what was checked; another one is not what was damaged."""
        kept, identity = self._kept, _inode(self._data / "PG_VERSION")
        if identity is not None and identity != kept.data:
            if kept.data is not None:
                log("damage.forgotten", why="another data directory", signs=len(kept.signs))
                kept.signs, kept.checked_lsn, kept.whole = [], None, False
            kept.data = identity
            self._save()
        if lsn is not None and kept.checked_lsn is not None and lsn < kept.checked_lsn:
            kept.checked_lsn = None
            self._save()

    def as_json(self) -> dict[str, Any]:
        """What the agent tells."""
        kept = self._kept
        return {
            "signs": [asdict(sign) for sign in kept.signs],
            "checked_at": kept.checked_at,
            "checked_lsn": kept.checked_lsn,
            "checked_timeline": kept.checked_timeline,
            "check": kept.said,
            "check_whole": kept.whole,
        }

    def _new_lines(self) -> Iterator[bytes]:
        """Whole lines since the last look; of a log that was put away meanwhile, its rest first."""
        place = self._kept.log
        rotated = self._log.with_suffix(".1")
        if place is not None and place.inode != _inode(self._log) and place.inode == _inode(rotated):
            yield from self._lines_of(rotated, place.offset)
            place = None
        offset = place.offset if place is not None and place.inode == _inode(self._log) else 0
        yield from self._lines_of(self._log, offset)

    def _lines_of(self, path: Path, offset: int) -> Iterator[bytes]:
        with suppress(FileNotFoundError), path.open("rb") as file:
            status = path.stat()
            if status.st_size < offset:
                offset = 0
            file.seek(offset)
            block = file.read(_READ)
            whole = block.rfind(b"\n") + 1
            self._kept.log = Place(
                status.st_ino, offset + (whole or (len(block) if len(block) == _READ else 0))
            )
            yield from block[:whole].splitlines()

    def _save(self) -> None:
        with suppress(OSError):  # a full disk: what is in memory still stands, and is told
            write_durably(self._path, json.dumps(asdict(self._kept), indent=1).encode())


def damage_in(line: bytes) -> tuple[DamageKind, str, str] | None:
    """The sign that a line of the server's log is: kind, where, evidence; None when it is none."""
    found = _LINE.match(line)
    if found is None:
        return None
    state, level, text = found.groups()
    if level not in _TOLD:
        return None
    if state in _CORRUPTED:
        return _corrupted(state.decode(), text)
    if level == b"PANIC" and not state.startswith(_EXHAUSTED):
        return DamageKind.PANIC, "server", f"PANIC, SQLSTATE {state.decode()}"
    return None


def _corrupted(state: str, text: bytes) -> tuple[DamageKind, str, str] | None:
    """The line's words may quote anything: only a page's number and its file are taken from them."""
    if (page := _PAGE.search(text)) is not None:
        return DamageKind.PAGE, page[2].decode(), f"invalid page in block {page[1].decode()}"
    if text.startswith(b"page verification failed"):
        return None  # the line that follows names the page
    kind = DamageKind.INDEX if state == _INDEX_CORRUPTED else DamageKind.HEAP
    return kind, "unnamed", f"SQLSTATE {state} in the server's log"


def _end(path: Path) -> Place | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return Place(status.st_ino, status.st_size)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _load(path: Path) -> _Kept:
    try:
        raw = json.loads(path.read_text())
        place = raw.pop("log")
        signs: Iterable[dict[str, Any]] = raw.pop("signs")
        return _Kept(
            signs=[Sign(**{**sign, "kind": DamageKind(sign["kind"])}) for sign in signs],
            log=None if place is None else Place(**place),
            **raw,
        )
    except FileNotFoundError:
        return _Kept()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log("damage.unreadable", level="error", found=f"{type(error).__name__}: {error}")
        return _Kept()
