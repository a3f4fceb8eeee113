"""What is seen before a failover is planned: systems that are out of reach, and a real database that refuses us."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from hospital import free_network, make_template

from hmsdr.control import pgconf
from hmsdr.control.programs import postgres_bin
from hmsdr.control.server import PostgresServer
from hmsdr.control.unprivileged import choose
from hmsdr.decide.gates import GateName, GateState, evaluate, refusing
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.runbook.observe import mode_of, observations, rest_mode_of
from hmsdr.runbook.systems import Systems

EAST, WEST = "us-east-1", "us-west-2"


@pytest_asyncio.fixture
async def systems(tmp_path: Path) -> AsyncIterator[Systems]:
    """Both regions on addresses where nothing listens, but for what the test starts there."""
    net = free_network()
    (tmp_path / "key").write_text("key")
    overlay = {
        "extends": "hms",
        "aws": {"endpoint_url": f"http://{net}.9:1", "access_key_id": "${file:key}", "secret_access_key": "${file:key}"},
        "regions": {
            name: {
                "kubernetes": {"kubeconfig": str(tmp_path / "kubeconfig")},
                "postgres": {"host": f"{net}.{number}", "password": None, "database": "nowhere"},
                "agent": {"url": f"http://{net}.{number}:1", "key": "${file:key}"},
            }
            for number, name in ((1, EAST), (2, WEST))
        },
    }  # fmt: skip
    (tmp_path / "playbook.yaml").write_text(yaml.safe_dump(overlay))
    store = await SqliteStore.open(tmp_path / "store.db", create=True, lease_seconds=4)
    made = Systems(load(tmp_path / "playbook.yaml"), store)
    yield made
    await made.close()
    await store.close()


@pytest.mark.req("FM-1")
async def test_what_does_not_answer_is_said_gate_by_gate_and_opens_none(systems: Systems) -> None:
    seen = await observations(systems, EAST, WEST, "back again")
    gates = {gate.name: gate for gate in evaluate(seen, systems.playbook.thresholds.gates)}
    assert gates[GateName.SECONDARY_HEALTHY].state is GateState.FAILED
    assert "Connection refused" in gates[GateName.SECONDARY_HEALTHY].observed
    assert gates[GateName.REPLICATION_LAG].state is GateState.UNKNOWN
    assert gates[GateName.BACKUPS_CURRENT].state is GateState.UNKNOWN
    assert gates[GateName.ROLLBACK_PLAN].state is GateState.PASSED
    assert len(refusing(tuple(gates.values()))) == 3
    assert await mode_of(systems, EAST) == "unplanned"
    assert await rest_mode_of(systems, EAST) == "unplanned"


@pytest.mark.req("FM-1")
async def test_a_database_that_refuses_us_is_a_gate_that_fails_and_says_why(
    systems: Systems, tmp_path: Path
) -> None:
    instance = systems.playbook.regions[WEST].postgres
    server = PostgresServer(make_template(tmp_path), postgres_bin(), choose(), tmp_path / "log")
    settings = pgconf.settings(instance, listen=instance.host, sockets=None, upstream=None)
    await server.start(writable=True, settings=settings, deadline=30)
    try:
        seen = await observations(systems, EAST, WEST, "back again")
        gate = evaluate(seen, systems.playbook.thresholds.gates)[0]
        assert gate.state is GateState.FAILED
        assert 'database "nowhere" does not exist' in gate.observed
        assert await mode_of(systems, WEST) == "unplanned"
    finally:
        await server.kill(10)
