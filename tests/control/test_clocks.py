"""Wall clocks jump, and nothing that is safe may depend on one: what counts time uses a clock that only goes forward."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import hmsdr
from hmsdr.control.chronicle import PROPOSED, VETOED, Chronicle
from hmsdr.log.events import Event

SOURCE = Path(hmsdr.__file__).parent
ROOMS = ("check", "control", "decide", "drivers", "log", "runbook")
FOR_PEOPLE = {
    "control/alarms.py": "the time in a message",
    "control/clearing.py": "when an order was given and ended; which signs a check disproves, all by one clock of one machine",
    "control/controller.py": "the age of failovers from before this life of the controller, and no other",
    "control/damage.py": "the moment a sign was seen",
    "control/fence.py": "the moment on the receipt",
    "control/health.py": "the moment in a sentence",
    "control/inspection.py": "the moment of an inspection",
    "control/logs.py": "the moment of a line",
    "control/promote.py": "the moment on the promotion",
    "control/recovering.py": "the name of a directory that is kept, and moments in an account",
    "control/server.py": "tells a reused pid from another boot, where the process itself cannot be looked at",
    "control/sighting.py": "when the primary was last seen, to be shown",
    "control/watch.py": "the moments in a trigger's account",
    "drivers/gateway.py": "a Retry-After that names a date",
    "drivers/webhook.py": "a Retry-After that names a date",
    "log/etcd.py": "the moment of an event",
    "log/sqlite.py": "the moment of an event",
    "runbook/actions/notification.py": "the moment a message was sent",
    "runbook/actions/reaching.py": "the age of what an agent saw: a jump says that sides do not see each other, and the step looks again",
    "runbook/actions/shifting.py": "how long users were held at a share, also over a runner's death, and of when Prometheus's figures "
    "are: a jump may cut a soak short, and never what it takes of figures to go on",
    "runbook/gap.py": "the age of a figure that is shown",
    "runbook/homecoming.py": "ages that gates are judged by, as in observe",
    "runbook/launch.py": "the name of a run",
    "runbook/observe.py": "ages that gates are judged by: a jump closes a gate, and people are told which age it is",
}
"""Where the wall clock is read, and what for. The deadline of a lease, hold-downs, waits and vetoes are not among them."""


def wall_clocks(path: Path) -> set[str]:
    """Calls in `path` that read the wall clock."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = f"{ast.unparse(node.func.value)}.{node.func.attr}"
            realtime = any("CLOCK_REALTIME" in ast.unparse(each) for each in node.args)
            if name in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow") or realtime:
                found.add(name)
    return found


@pytest.mark.req("FA-4")
def test_the_wall_clock_is_read_for_people_only() -> None:
    """Whoever reads it in one more place says here what for."""
    paths = [path for room in ROOMS for path in sorted((SOURCE / room).rglob("*.py"))]
    reads = {str(path.relative_to(SOURCE)) for path in paths if wall_clocks(path)}
    assert reads == set(FOR_PEOPLE)


def event(kind: str, at: datetime) -> Event:
    return Event(1, at, 1, kind, "us-east-1", "a controller", {"epoch": 1, "reason": "r"}, "", "")


@pytest.mark.req("FA-4", "FA-5")
@pytest.mark.parametrize("jump", [timedelta(hours=-5), timedelta(hours=5)])
def test_a_clock_that_jumps_cuts_no_veto_short(jump: timedelta) -> None:
    """Written by a site whose clock is hours off, or read by one: the time to stop it begins when it is read."""
    chronicle = Chronicle()
    proposal = event(PROPOSED, datetime.now(UTC) + jump)
    chronicle.take([proposal], 100.0)
    noted = chronicle.noted(PROPOSED, "us-east-1", 1)
    assert noted is not None
    assert noted.at == 100.0
    after = Chronicle()
    after.take([proposal, event(VETOED, proposal.at)], 7.0, datetime.now(UTC))
    noted = after.noted(PROPOSED, "us-east-1", 1)
    assert noted is not None
    assert noted.at == 7.0, "a controller that begins anew gives people the whole time again"
