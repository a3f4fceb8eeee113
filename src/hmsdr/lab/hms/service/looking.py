"""What a database is asked by a pod that looks for the primary, and what its answer means. Pure: it asks nobody itself."""

from __future__ import annotations

from dataclasses import dataclass

from hmsdr.lab.hms.service.connecting import DatabaseDownError
from hmsdr.lab.layout import Endpoint

CLAIM_SECONDS = 1.0
"""How long a new primary may take to write its epoch; an agent does so with its first write. One promoted by hand never does."""
LOOK = """
SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', current_setting('cluster_name'),
       e.epoch, e.instance IS NOT DISTINCT FROM current_setting('cluster_name')
FROM (SELECT 1) AS one LEFT JOIN (SELECT epoch, instance FROM hmsdr_epoch ORDER BY epoch DESC LIMIT 1) AS e ON true
"""
_WAIT = """
DO $$ BEGIN
    FOR step IN 1..{steps} LOOP
        IF NOT pg_is_in_recovery() THEN
            EXIT WHEN (SELECT instance FROM hmsdr_epoch ORDER BY epoch DESC LIMIT 1) = current_setting('cluster_name');
        END IF;
        PERFORM pg_sleep({pause});
        COMMIT;
    END LOOP;
END $$
"""
"""Returns as soon as it takes writes: asked over and over from here it would cost both sides many times as much. Each
COMMIT lets go of the snapshot, for which replay might have to wait."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server says of itself."""

    standby: bool
    read_only: bool
    instance: str
    epoch: int | None
    claimed: bool
    """Whether the newest epoch is its own."""


@dataclass(frozen=True, slots=True)
class Place:
    """The primary as of one look; a later look, of the same server too, has a later ``generation``."""

    endpoint: Endpoint
    address: str
    epoch: int
    generation: int


def waiting(seconds: float, step: float) -> str:
    """SQL that returns when the server takes writes, looking each `step`, or after `seconds`."""
    return _WAIT.format(steps=round(seconds / step), pause=step)


def refusal(seen: Seen, *, newest: int, without_epoch: float) -> DatabaseDownError | None:
    """Why a server is not the primary; None when it is.

    Args:
        seen: what it says of itself.
        newest: the newest epoch that any server showed.
        without_epoch: for how many seconds it has been out of recovery without an epoch of its own.
    """
    if seen.standby:
        return DatabaseDownError("read_only", "the database is in recovery: a standby, which takes no writes")
    if seen.read_only:
        return DatabaseDownError("read_only", "the database refuses writes: transactions are read-only")
    if (seen.epoch or 0) < newest:
        found = f"it was the primary once: it knows epoch {seen.epoch}, epoch {newest} was seen"
        return DatabaseDownError("old_primary", found)
    if not seen.claimed and without_epoch < CLAIM_SECONDS:
        found = "it has just left recovery, and has no epoch of its own yet"
        return DatabaseDownError("no_epoch", found)
    return None
