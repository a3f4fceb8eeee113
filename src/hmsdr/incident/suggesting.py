"""The ways out of an incident that `hmsdr.decide.suggestions` proposes, each runbook's gates judged as of now (IR-2, FM-1). Changes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from hmsdr.decide.gates import Gate, refusing
from hmsdr.decide.incident import Incident
from hmsdr.decide.suggestions import Suggestion, suggest
from hmsdr.errors import HmsdrError
from hmsdr.log.store import Store
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.launch import prepare
from hmsdr.runbook.systems import Systems

JUDGE_SECONDS = 30.0
"""For the gates of one runbook."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One suggestion. ``allowed`` is None where nothing judges it: it has no runbook, or ``found`` says what kept it from being judged."""

    suggestion: Suggestion
    allowed: bool | None
    gates: tuple[Gate, ...] = ()
    steps: int = 0
    found: str = ""


async def judged(incident: Incident, playbook: Playbook, store: Store, active: str | None) -> list[Judged]:
    """What fits the incident, gravest first, with its gates; a system that hangs keeps none waiting for longer than `JUDGE_SECONDS`.

    Args:
        incident: as the log has it.
        playbook: with its systems.
        store: its log and the right to write.
        active: the region whose database holds that right; None when it is not known.

    Raises:
        StoreError: the log does not answer.
    """
    found = suggest(incident, playbook, active)
    systems = Systems(playbook, store)
    try:
        return list(await asyncio.gather(*(_judge(each, playbook, systems, store) for each in found)))
    finally:
        await systems.close()


def as_json(each: Judged) -> dict[str, Any]:
    """For machines."""
    way = each.suggestion
    return {
        "what": way.what,
        "why": way.why,
        "command": way.command,
        "runbook": way.runbook or None,
        "parameters": dict(way.parameters),
        "allowed": each.allowed,
        "steps": each.steps,
        "gates": [asdict(gate) for gate in each.gates],
        "found": each.found,
    }


async def _judge(way: Suggestion, playbook: Playbook, systems: Systems, store: Store) -> Judged:
    if not way.runbook:
        return Judged(way, None)
    try:
        async with asyncio.timeout(JUDGE_SECONDS):
            ready = await prepare(
                playbook, systems, way.parameters, runbook=way.runbook, events=await store.read()
            )
    except TimeoutError:
        return Judged(way, None, found=f"its gates could not be judged within {JUDGE_SECONDS:.0f} s")
    except HmsdrError as error:
        return Judged(way, None, found=str(error))
    steps = len(list(ready.plan.steps()))
    return Judged(way, not refusing(ready.gates), ready.gates, steps)
