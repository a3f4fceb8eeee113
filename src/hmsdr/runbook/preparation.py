"""What a person looks at before a failover (FM-2): nodes and pods of the target, who replicates, the target's own health.

Shown beside the gates and judged by nobody: it only looks, at everything at once, and says what did not answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hmsdr.drivers.errors import DriverError
from hmsdr.runbook.systems import Systems

_PROBE_SECONDS = 3.0
_MOST_NAMES = 8


@dataclass(frozen=True, slots=True)
class Seen:
    """One of the four things. ``words`` is for people, ``details`` are one line each."""

    name: str
    well: bool
    words: str
    details: tuple[str, ...] = ()


async def look(systems: Systems, source: str, target: str) -> tuple[Seen, ...]:
    """All four."""
    return tuple(
        await asyncio.gather(
            _nodes(systems, target),
            _pods(systems, target),
            _replication(systems, source, target),
            _health(systems, target),
        )
    )


async def _nodes(systems: Systems, target: str) -> Seen:
    found = await _try(systems.kubernetes(target).nodes(deadline=_PROBE_SECONDS))
    if isinstance(found, DriverError):
        return Seen("nodes", False, found.found)
    ready = [node.name for node in found if node.ready]
    lines = tuple(f"{node.name} {'Ready' if node.ready else 'NotReady'}" for node in found)
    return Seen(
        "nodes", 0 < len(ready) == len(found), f"{len(ready)} of {len(found)} ready in {target}", lines
    )


async def _pods(systems: Systems, target: str) -> Seen:
    found = await _try(systems.kubernetes(target).pods(deadline=_PROBE_SECONDS))
    if isinstance(found, DriverError):
        return Seen("pods", False, found.found)
    ill = [pod for pod in found if not pod.ready]
    lines = tuple(f"{pod.namespace}/{pod.name} {pod.phase}, {pod.restarts} restarts" for pod in found)
    words = f"{len(found) - len(ill)} of {len(found)} ready in {target}"
    if ill:
        words += f"; not: {_some([pod.name for pod in ill])}"
    return Seen("pods", bool(found) and not ill, words, lines)


async def _replication(systems: Systems, source: str, target: str) -> Seen:
    """pg_stat_replication of the primary: the database that is to be left, or the target's when it has the right already."""
    holder = (await systems.authority.read_authority()).holder
    moved = holder is not None and holder.instance == systems.playbook.regions[target].postgres.instance
    primary = target if moved else source
    found = await _try(systems.postgres(primary).replication(deadline=_PROBE_SECONDS))
    if isinstance(found, DriverError):
        return Seen("replication", False, f"{primary}: {found.found}")
    lines = tuple(
        f"{each.name} {each.state}, {each.sync_state}, replay lag "
        f"{'none' if each.replay_lag_seconds is None else f'{each.replay_lag_seconds:.3f} s'}"
        for each in found
    )
    streaming = [each for each in found if each.state == "streaming"]
    return Seen("replication", bool(streaming), f"{len(streaming)} standby streams from {primary}", lines)


async def _health(systems: Systems, target: str) -> Seen:
    """The target's own health endpoint; its services may well wait for the right to write."""
    url = f"{systems.playbook.regions[target].ingress.url}/health"
    answer = await systems.http().get(url, deadline=_PROBE_SECONDS)
    if answer.status is None:
        return Seen("health", False, f"{url}: {answer.found or answer.outcome}")
    words = f"{url}: HTTP {answer.status}"
    return Seen("health", answer.status == 200, words, tuple(_services(answer.body)))  # noqa: PLR2004 - HTTP's OK


def _services(body: bytes) -> list[str]:
    """One line for each service, where the body tells."""
    try:
        found: Mapping[str, Any] = json.loads(body)["services"]
        return [
            f"{name} {each['status']}{': ' + each['reason'] if each.get('reason') else ''}"
            for name, each in found.items()
        ]
    except (ValueError, LookupError, TypeError, AttributeError):
        return []


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


async def _try(call: Awaitable[Any]) -> Any:
    """The answer, or the error as a value."""
    try:
        return await call
    except DriverError as error:
        return error
