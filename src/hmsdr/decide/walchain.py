"""Whether the archived WAL leads from a backup to where somebody wants to go, over every timeline between. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hmsdr.decide.lsn import format_lsn
from hmsdr.decide.timelines import Stretch, history

_SEGMENT = re.compile(r"^[0-9A-F]{24}$")
_HISTORY = re.compile(r"^([0-9A-F]{8})\.history$")
_FOUR_GIB = 1 << 32


class Broken(StrEnum):
    """How a chain of WAL fails."""

    GAP = "gap"
    """Files are missing in the middle."""
    SHORT = "short"
    """It ends before the backup is consistent: nothing can be restored."""
    HISTORY = "history"
    """A timeline's history is missing or cannot be read."""
    PARTED = "parted"
    """The backup is of a history that the database left."""
    BEYOND = "beyond"
    """It ends before the target."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a chain, in words."""

    kind: Broken
    words: str


@dataclass(frozen=True, slots=True)
class Start:
    """Where replay begins, and from where on the result is consistent; LSNs in bytes of WAL."""

    timeline: int
    begin_lsn: int
    consistent_lsn: int
    segment: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Files of WAL in the order of replay. ``reaches``: the LSN up to which they are without a gap."""

    timeline: int
    files: tuple[str, ...]
    histories: tuple[str, ...]
    reaches: int
    problems: tuple[Problem, ...]


def segment_name(timeline: int, number: int, size: int) -> str:
    """The name of the file of WAL with that number, counted from the beginning, in files of `size` bytes."""
    each = _FOUR_GIB // size
    return f"{timeline:08X}{number // each:08X}{number % each:08X}"


def segment_number(name: str, size: int) -> int:
    """The reverse: which file it is, counted from the beginning."""
    return int(name[8:16], 16) * (_FOUR_GIB // size) + int(name[16:24], 16)


def is_segment(name: str) -> bool:
    """Whether it is the name of a whole file of WAL."""
    return _SEGMENT.fullmatch(name) is not None


def history_timeline(name: str) -> int | None:
    """The timeline whose history file has that name; None when it is none."""
    found = _HISTORY.fullmatch(name)
    return None if found is None else int(found[1], 16)


def chain(
    start: Start,
    archived: Collection[str],
    histories: Mapping[int, str],
    *,
    target_lsn: int | None = None,
    timeline: int | None = None,
) -> Chain:
    """The files that lead from `start` to `target_lsn`, or as far as there are any.

    Args:
        start: of the backup.
        archived: names of the files that are in the archive.
        histories: text of each timeline's history file.
        target_lsn: where to go.
        timeline: on which timeline to end; None means the newest that the archive has.
    """
    names = {name for name in archived if is_segment(name)}
    wanted = max((int(name[:8], 16) for name in names), default=start.timeline)
    wanted = max([wanted, start.timeline, *histories]) if timeline is None else timeline
    path, problems = _path(start, wanted, histories)
    if path is None:
        return Chain(wanted, (), (), start.begin_lsn, tuple(problems))
    first = start.begin_lsn // start.segment
    # What a timeline wrote after it was left is none of this history: a lost primary may have archived much of it.
    numbers = [segment_number(name, start.segment) for name in names]
    on_path = zip(names, numbers, strict=True)
    last = max(
        (
            number
            for name, number in on_path
            if int(name[:8], 16) == _timeline_of(path, number, start.segment)
        ),
        default=first,
    )
    if target_lsn is not None:
        last = min(last, target_lsn // start.segment)
    files: list[str] = []
    absent: list[str] = []
    for number in range(first, last + 1):
        name = segment_name(_timeline_of(path, number, start.segment), number, start.segment)
        if name not in names:
            absent.append(name)
        elif not absent:
            files.append(name)
    reaches = (first + len(files)) * start.segment
    if absent:
        words = f"{len(absent)} files of WAL are missing, the first is {absent[0]}; what follows cannot be replayed"
        problems.append(Problem(Broken.GAP, words))
    problems += _ends(start, reaches, target_lsn, gap=bool(absent))
    needed = tuple(f"{stretch.timeline:08X}.history" for stretch in path[1:])
    return Chain(wanted, tuple(files), needed, reaches, tuple(problems))


def _ends(start: Start, reaches: int, target: int | None, *, gap: bool) -> list[Problem]:
    if reaches < start.consistent_lsn:
        words = (
            f"the archived WAL ends at {format_lsn(reaches)}, and the backup is consistent only from "
            f"{format_lsn(start.consistent_lsn)} on"
        )
        return [Problem(Broken.SHORT, words)]
    if target is not None and reaches <= target and not gap:
        words = f"the archived WAL ends at {format_lsn(reaches)}, and the target is {format_lsn(target)}"
        return [Problem(Broken.BEYOND, words)]
    return []


def _path(
    start: Start, wanted: int, histories: Mapping[int, str]
) -> tuple[tuple[Stretch, ...] | None, list[Problem]]:
    """The stretches from the backup's timeline to the wanted one."""
    if wanted == start.timeline:
        return (Stretch(wanted, 0, None),), []
    text = histories.get(wanted)
    if text is None:
        words = f"the history of timeline {wanted} is missing: nobody can tell where it left the backup's"
        return None, [Problem(Broken.HISTORY, words)]
    try:
        stretches = history(wanted, text)
    except ValueError as error:
        return None, [Problem(Broken.HISTORY, f"the history of timeline {wanted} cannot be read: {error}")]
    for index, stretch in enumerate(stretches):
        if stretch.timeline != start.timeline:
            continue
        if stretch.ends is not None and stretch.ends < start.consistent_lsn:
            words = (
                f"timeline {wanted} left timeline {start.timeline} at {format_lsn(stretch.ends)}, before the backup "
                f"was consistent at {format_lsn(start.consistent_lsn)}: it holds what the hospital no longer has"
            )
            return None, [Problem(Broken.PARTED, words)]
        return stretches[index:], []
    words = f"timeline {wanted} does not come from timeline {start.timeline}, on which the backup was made"
    return None, [Problem(Broken.PARTED, words)]


def _timeline_of(path: tuple[Stretch, ...], number: int, size: int) -> int:
    """The newest timeline that has the file: where one was left for another, the newer file has both."""
    for stretch in reversed(path):
        if stretch.begins // size <= number:
            return stretch.timeline
    return path[0].timeline
