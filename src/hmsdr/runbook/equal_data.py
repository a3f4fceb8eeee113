"""Comparing the data of both regions as it is wanted before anybody goes home (RC-3): which side is which, and what stays on record.

Comparing itself is `hmsdr.runbook.comparing`'s part. Nothing is changed but a line in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hmsdr.decide.equality import COMPARED
from hmsdr.decide.lsn import format_lsn
from hmsdr.errors import RefusedError
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import Store
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.comparing import Compared, Comparison, Progress
from hmsdr.runbook.systems import Systems

_ASK_SECONDS = 5.0


async def compare_regions(
    systems: Systems,
    store: Store,
    *,
    by: str,
    rate: int | None = None,
    jobs: int | None = None,
    say: Callable[[Progress], None] = lambda _: None,
) -> Compared:
    """Compare the database that writes with the one that follows, and note what came of it, by whom.

    ``rate`` in bytes a second and ``jobs`` are the playbook's unless given.

    Raises:
        RefusedError: there are not one that writes and one that follows it.
        TemporaryError: they could not be compared within the playbook's time.
    """
    playbook = systems.playbook
    primary, standby = await _sides(playbook, systems)
    policy = playbook.database.comparison
    comparison = Comparison(
        playbook.regions[primary].postgres,
        playbook.regions[standby].postgres,
        rate=policy.rate if rate is None else rate,
        jobs=jobs or policy.jobs,
        say=say,
    )
    found = await comparison.run(deadline=policy.at_most.total_seconds())

    async def noted() -> list[NewEvent]:
        # No key of a row: whatever identifies a patient stays where it is.
        data = {
            "primary": primary,
            "standby": standby,
            "equal": found.equal,
            "lsn": format_lsn(found.lsns[-1]),
            "tables": len(found.sums),
            "rows": sum(each.rows for each in found.sums.values()),
            "different": sorted({each.table for each in found.differences}),
            "seconds": round(found.seconds, 3),
        }
        return [NewEvent(COMPARED, standby, by, data)]

    await append_after(store, noted, doing="noting that the data were compared")
    return found


async def _sides(playbook: Playbook, systems: Systems) -> tuple[str, str]:
    """The region whose database writes, and the one whose database follows it.

    Raises:
        RefusedError: there are not one of each.
    """
    names = list(playbook.regions)
    seen = await asyncio.gather(*(systems.postgres(name).status(deadline=_ASK_SECONDS) for name in names))
    writes = [name for name, each in zip(names, seen, strict=True) if each.in_recovery is False]
    follows = [name for name, each in zip(names, seen, strict=True) if each.in_recovery]
    if len(writes) != 1 or len(follows) != 1:
        told = "; ".join(
            f"{name} {each.found if not each.reachable else 'follows' if each.in_recovery else 'writes'}"
            for name, each in zip(names, seen, strict=True)
        )
        raise RefusedError(
            "comparing the data of both regions",
            told,
            "It takes a database that writes and one that follows it: `hmsdr plan recover REGION`, or `hmsdr follow REGION`",
        )
    systems_seen = {each.system_identifier for each in seen}
    if len(systems_seen) != 1:
        raise RefusedError(
            "comparing the data of both regions",
            f"they are two databases, of systems {' and '.join(map(str, systems_seen))}",
            "The standby was not made from this primary: make it anew",
        )
    return writes[0], follows[0]
