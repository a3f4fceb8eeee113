"""What an agent must not forget: the epoch it accepted, its fence receipt, its promotion, whom it follows.

One small JSON file, replaced whole and synced, file and directory, before any answer that relies on it
(SAFETY rules 3 and 5). It decides nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hmsdr.decide.promise import Promise
from hmsdr.errors import FailedError, RefusedError

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class FenceReceipt:
    """The word that under ``epoch`` and before nothing here can write any more.

    ``last_lsn`` (bytes of WAL) is the end of what was written, None when it could not be read; with ``clean``
    the place of the shutdown checkpoint, which covers every commit. ``fenced_at`` is ISO 8601, UTC.
    """

    instance: str
    incarnation: str
    epoch: int
    fenced_at: str
    last_lsn: int | None
    timeline: int | None
    clean: bool
    killed: int
    survivors: int = 0
    unused: bool = False
    """No promotion was ever accepted here under this epoch."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promotion that took place. ``lsn`` in bytes of WAL; ``seconds`` from the request to the first write."""

    epoch: int
    promoted_at: str
    lsn: int
    timeline: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Upstream:
    """The primary that a standby follows, through which slot of it."""

    host: str
    port: int
    slot: str


@dataclass(frozen=True, slots=True)
class AgentState:
    """Everything durable. ``promotion`` is the last one; ``system_identifier`` that of the promoted data."""

    instance: str
    accepted_epoch: int = 0
    fence: FenceReceipt | None = None
    promotion: Promotion | None = None
    upstream: Upstream | None = None
    system_identifier: int | None = None
    promise: Promise | None = None
    """The last that was given to the other side (SAFETY rule 7)."""
    stopped: bool = False
    """It was stopped on purpose (fenced): it stays down until it is promoted or told to follow."""
    rewinding: bool = False
    """pg_rewind began on the data directory, after all that would be lost was settled, and did not end: nothing may be started
    from it."""
    rewind_failed: str = ""
    """Why it did not, when it failed after it had begun to write."""

    @property
    def promoted_epoch(self) -> int:
        """Epoch of the last promotion, 0 when there was none."""
        return self.promotion.epoch if self.promotion is not None else 0

    @property
    def fenced_epoch(self) -> int | None:
        """Writing up to this epoch is over here for good; None when nothing was fenced."""
        return self.fence.epoch if self.fence is not None else None

    def fenced(self, epoch: int) -> bool:
        """Whether writing under `epoch` is over here for good."""
        return self.fence is not None and self.fence.epoch >= epoch


class StateFile:
    """The file that keeps an `AgentState`.

    Raises:
        RefusedError: the file is damaged, or belongs to another instance.
    """

    def __init__(self, path: Path, instance: str) -> None:
        self.path = path
        self.state = _load(path, instance)

    def change(self, **changes: Any) -> AgentState:
        """Replace fields and have them on disk before returning.

        Raises:
            FailedError: the disk refuses; what was there before still stands.
        """
        new = replace(self.state, **changes)
        text = json.dumps({"format": _FORMAT, **asdict(new)}, indent=1).encode()
        try:
            write_durably(self.path, text)
        except OSError as error:
            raise FailedError(
                f"writing the agent's state {self.path}", str(error), "Check space, permissions and the mount"
            ) from error
        self.state = new
        return new


def write_durably(path: Path, content: bytes) -> None:
    """Replace `path` with `content`; on return it survives a crash of the machine."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make a created, renamed or removed name in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _load(path: Path, instance: str) -> AgentState:
    try:
        raw = json.loads(path.read_text())
        if raw.pop("format") != _FORMAT:
            raise ValueError("written by another version")  # noqa: TRY301 - one remedy for all damage
        state = AgentState(
            **{
                **raw,
                "fence": FenceReceipt(**raw["fence"]) if raw["fence"] else None,
                "promotion": Promotion(**raw["promotion"]) if raw["promotion"] else None,
                "upstream": Upstream(**raw["upstream"]) if raw["upstream"] else None,
                "promise": Promise(**raw["promise"]) if raw.get("promise") else None,
            }
        )
    except FileNotFoundError:
        return AgentState(instance=instance)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RefusedError(
            f"reading the agent's state {path}",
            f"{type(error).__name__}: {error}",
            "Without it nobody knows which epochs were used here. Rebuild this database as a new standby",
        ) from error
    if state.instance != instance:
        raise RefusedError(
            f"reading the agent's state {path}",
            f"it belongs to {state.instance}, this agent is for {instance}",
            "Give each agent a state directory of its own",
        )
    return state
