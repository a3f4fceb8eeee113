"""Monitoring after a failover, asked at a real Prometheus: targets up or not, rules loaded, broken, absent."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.prometheus import Prometheus
from hmsdr.lab.binaries import find
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.runbook.action import Action, Check, StepContext
from hmsdr.runbook.actions.database import RegionArgs
from hmsdr.runbook.actions.monitoring import AlertsConfigured, RegionWatched
from hmsdr.runbook.systems import Systems

EAST, WEST = "us-east-1", "us-west-2"
GOOD = {"alert": "Down", "expr": "up == 0"}
FIRING = {"alert": "Always", "expr": "vector(1)"}
BROKEN = {"alert": "Broken", "expr": "up * on() up"}
"""It parses; evaluated, many match many."""

Start = Callable[[list[dict[str, str]]], str]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a Prometheus with these rules, which scrapes itself five times for the west, and nobody for the east."""
    started: list[subprocess.Popen[bytes]] = []

    def run(rules: list[dict[str, str]]) -> str:
        place = tmp_path_factory.mktemp("prometheus")
        net = f"127.{random.randrange(200, 240)}.{random.randrange(1, 255)}"
        address = f"{net}.92:9090"
        (place / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "hms", "rules": rules}]}))
        jobs = [
            {
                "job_name": f"west-{number}",
                "static_configs": [{"targets": [address], "labels": {"region": WEST}}],
            }
            for number in range(5)
        ]
        nobody = {"targets": [f"{net}.93:1"], "labels": {"region": EAST}}
        config = {
            "global": {"scrape_interval": "100ms", "scrape_timeout": "100ms", "evaluation_interval": "100ms"},
            "rule_files": [str(place / "rules.yml")] if rules else [],
            "scrape_configs": [*jobs, {"job_name": "east", "static_configs": [nobody]}],
        }
        (place / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            find("prometheus"), f"--config.file={place / 'prometheus.yml'}", f"--web.listen-address={address}",
            f"--storage.tsdb.path={place / 'data'}", "--log.level=error",
        ]  # fmt: skip
        started.append(subprocess.Popen(command))
        return f"http://{address}"

    yield run
    for process in started:
        process.kill()
        process.wait(10)


async def checked(
    place: Path, url: str, action: Action[RegionArgs], region: str, *, seconds: float = 20, holds: bool = True
) -> Check:
    """The check once it holds as wanted, or the last one at the deadline."""
    (place / "playbook.yaml").write_text(yaml.safe_dump({"extends": "hms", "prometheus": {"url": url}}))
    store = await SqliteStore.open(place / "store.db", create=True, lease_seconds=4)
    secrets = dict.fromkeys(
        ("HMSDR_POSTGRES_PASSWORD", "HMSDR_AGENT_KEY_US_EAST_1", "HMSDR_AGENT_KEY_US_WEST_2"), "x"
    )
    systems = Systems(load(place / "playbook.yaml", environ=secrets), store)
    ends = time.monotonic() + seconds
    check = Check(False, {}, "Prometheus")
    try:
        while time.monotonic() < ends:
            at = asyncio.get_running_loop().time() + 3
            try:
                check = await action.check(
                    StepContext(systems, "run", at, lambda _: None), RegionArgs(region=region)
                )
            except DriverError as error:
                check = Check(False, {}, error.found)
            if check.holds == holds and check.observed:
                break
            await asyncio.sleep(0.05)
    finally:
        await systems.close()
        await store.close()
    return check


@pytest.mark.req("AP-1")
async def test_a_region_is_watched_when_all_its_targets_are_up(start: Start, tmp_path: Path) -> None:
    url = start([GOOD, FIRING])
    west = await checked(tmp_path, url, RegionWatched(), WEST)
    assert west.holds, west
    assert (west.observed["up"], west.observed["targets"]) == (5, 5)
    east = await checked(tmp_path, url, RegionWatched(), EAST, holds=False)
    assert not east.holds
    assert east.waiting_for == "Prometheus to see us-east-1 (0 of 5 targets up)"

    alerts = await checked(tmp_path, url, AlertsConfigured(), WEST)
    assert alerts.holds, alerts
    assert alerts.observed["rules"] == ["Down", "Always"]
    ends = time.monotonic() + 20
    prometheus = Prometheus(url)
    while (states := {rule.name: rule.state for rule in await prometheus.alert_rules(2)})[
        "Always"
    ] != "firing":
        assert time.monotonic() < ends, states
        await asyncio.sleep(0.05)
    await prometheus.close()
    assert (await checked(tmp_path, url, AlertsConfigured(), WEST)).observed["firing"] == ["Down", "Always"]


@pytest.mark.req("AP-1")
async def test_rules_that_fail_or_are_not_there_are_no_alerting(start: Start, tmp_path: Path) -> None:
    broken_at, none_at = start([GOOD, BROKEN]), start([])
    assert not (await checked(tmp_path, none_at, AlertsConfigured(), WEST, holds=False)).holds
    none = await checked(tmp_path, none_at, AlertsConfigured(), WEST, seconds=1)
    assert (none.holds, none.waiting_for) == (False, "alert rules: there are none")
    ends = time.monotonic() + 20
    while not (
        seen := await checked(tmp_path, broken_at, AlertsConfigured(), WEST, holds=False)
    ).observed.get("broken"):
        # Before its first evaluation a broken rule looks like any other: it must not count as healthy.
        assert not seen.holds
        assert time.monotonic() < ends, seen
    assert seen.observed["broken"] == ["Broken"]
    assert "these cannot: Broken" in (seen.waiting_for or "")
