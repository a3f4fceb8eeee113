"""Of what the silence that clinics felt consists: read from what both agents logged about one switchover. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from hmsdr.errors import FailedError


def last(log: Path, event: str) -> Mapping[str, Any]:
    """The newest line about `event` in an agent's log.

    Raises:
        FailedError: there is none, or no such log.
    """
    try:
        said = log.read_text(errors="replace").splitlines()
    except OSError as error:
        raise FailedError(
            f"reading {log}", error.strerror or str(error), "See where the lab keeps its logs"
        ) from error
    for line in reversed(said):
        if f'"event": "{event}"' in line:
            found: Mapping[str, Any] = json.loads(line)
            return found
    raise FailedError(f"reading {log}", f"it says nothing of {event}", "See whether the agent wrote there")


def parts(
    fenced: Mapping[str, Any], promoted: Mapping[str, Any], silence: tuple[float, float]
) -> dict[str, float]:
    """Seconds of each part, in their order.

    Args:
        fenced: the old side's line ``fence.confirmed``.
        promoted: the new side's line ``promote.done``.
        silence: when the last write before and the first one after were acknowledged, in Unix time.
    """
    old, new = fenced["parts"], promoted["parts"]
    confirmed = datetime.fromisoformat(fenced["at"]).timestamp()
    done = datetime.fromisoformat(promoted["at"]).timestamp()
    asked_to_stop = confirmed - sum(old[each] for each in ("stop", "proof", "durable"))
    asked_to_promote = done - sum(new.values())
    found = {
        "last write": asked_to_stop - silence[0],
        "stop": old["stop"],
        "proof": old["proof"],
        "receipt": old["durable"],
        "grant": asked_to_promote - confirmed,
        "authority": new["authorised"],
        "replay": new["replayed"],
        "acceptance": new["accepted"],
        "promotion": new["first write"],
        "pod": silence[1] - (done - new["durable"]),
    }
    return {name: round(seconds, 4) for name, seconds in found.items()}
