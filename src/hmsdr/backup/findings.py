"""What can be wrong with backups, each kind with its words and what to do. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hmsdr.errors import ExitStatus, HmsdrError


class Kind(StrEnum):
    """What is wrong."""

    NONE = "no-backup"
    OLD = "old"
    RECORD = "record"
    OBJECTS = "objects"
    CONTENT = "content"
    COPY = "copy"
    STORE = "object-store"
    GAP = "wal-gap"
    HISTORY = "timeline-history"
    PARTED = "left-history"
    LATE = "archive-late"
    CLOCK = "clock"
    SYSTEM = "other-system"
    VERSION = "other-version"
    TARGET = "target"
    SPACE = "space"
    REPLAY = "replay"
    DAMAGE = "damage"
    DIFFERENT = "different"
    SLOW = "slow"
    ARCHIVE = "archive-content"
    KEY = "key"


REMEDIES = {
    Kind.NONE: "Run `hmsdr backup run` beside the primary, and see why the schedule did not",
    Kind.OLD: "Run `hmsdr backup run` beside the primary, and see why the schedule did not",
    Kind.RECORD: "Use another backup; make a new one with `hmsdr backup run`",
    Kind.OBJECTS: "Use another backup, or make a new one; see the bucket's lifecycle rules and who may delete there",
    Kind.CONTENT: "Use the copy in the other bucket or another backup; find out who writes to this one",
    Kind.COPY: "`hmsdr backup run` copies what is missing; see whether the other bucket can be written",
    Kind.STORE: "See the network, the bucket's name and the permissions",
    Kind.GAP: "Make a base backup now (`hmsdr backup run`): from it on there is no gap; then find out who removed the files",
    Kind.HISTORY: "Copy the history file from pg_wal of the primary (archive it again), or restore an older timeline",
    Kind.PARTED: "Make a base backup of the present primary now",
    Kind.LATE: "See the database's log for what its archive_command says (`hmsdr: archiving …`)",
    Kind.CLOCK: "Set the clock (chrony, the hypervisor): points in time and retention go by it",
    Kind.SYSTEM: "Name a backup of this hospital's database: `hmsdr backup list`",
    Kind.VERSION: "Use programs of PostgreSQL of the backup's major version (--postgres-bin)",
    Kind.TARGET: "Name an older backup, or a later target: `hmsdr backup list`",
    Kind.SPACE: "Make room, or name another directory",
    Kind.REPLAY: "Use an older backup or an earlier target; make a new base backup now",
    Kind.DAMAGE: "Compare with the running database (`pg_amcheck`): is the damage older than the backup? Then use an older one",
    Kind.DIFFERENT: "Keep this result; look at the table on primary, standby and in an older backup before anything is restored",
    Kind.SLOW: "Make base backups more often: less WAL is replayed then; or give the restore a faster machine",
    Kind.ARCHIVE: "Use another backup of the cluster; nothing of this one was applied",
    Kind.KEY: "Name the private key that belongs to the archive's recipients (backups.kubernetes.identity)",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, in words."""

    kind: Kind
    words: str

    @property
    def remedy(self) -> str:
        """What to do."""
        return REMEDIES[self.kind]


class UnfitError(HmsdrError):
    """A backup cannot be restored as it is. Nothing that exists was touched."""

    status = ExitStatus.REFUSED

    def __init__(self, doing: str, kind: Kind, found: str) -> None:
        super().__init__(doing, found, REMEDIES[kind])
        self.kind = kind

    @property
    def finding(self) -> Finding:
        """The same, as a finding of a check."""
        return Finding(self.kind, self.found)
