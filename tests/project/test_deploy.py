"""The unit files and manifests that ship: every option they give exists, every path they probe is served."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from hmsdr.cli.main import cli

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
RULES = DEPLOY / "prometheus" / "hmsdr-alerts.yml"
OTHERS = {"up", "etcd_mvcc_db_total_size_in_bytes", "etcd_server_quota_backend_bytes"}
"""Prometheus' own, and etcd's."""
SERVED = {"/healthz", "/readyz"}


def check(words: list[str]) -> None:
    """Whether `words` would be taken as a command line of ours: each option known, with a value, none missing."""
    command = cli.get_command(click.Context(cli), words[0])
    while isinstance(command, click.Group):
        words = words[1:]
        command = command.get_command(click.Context(command), words[0])
    assert command is not None
    context = command.make_context(words[0], list(words[1:]))
    assert context.params["playbook_path"] is not None


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_what_there_is(unit: Path) -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    service = parser["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "hmsdr"
    check(words)
    if service.get("Type") == "oneshot":
        timer = configparser.ConfigParser(interpolation=None, strict=True)
        timer.read(unit.with_suffix(".timer"))
        assert timer["Timer"]["OnCalendar"]
        assert service["TimeoutStartSec"]
        return
    assert service["Restart"] == "always"
    # The agent's own bound on stopping the database in order is shorter.
    assert int(service["TimeoutStopSec"].removesuffix("s")) >= 30


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_starts_what_there_is_and_probes_what_is_served(manifest: Path) -> None:
    found: dict[str, Any] = yaml.safe_load(manifest.read_text())
    assert found["spec"]["replicas"] == 1
    template = found["spec"]["template"]
    assert found["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    check(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] in SERVED
        assert asked["port"] in ports
    listens = next(word for word in container["args"] if word.startswith("--listen="))
    assert int(listens.rpartition(":")[2]) in ports.values()
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claimed = {claim["metadata"]["name"] for claim in found["spec"].get("volumeClaimTemplates", [])}
    assert mounted == {volume["name"] for volume in template["spec"]["volumes"]} | claimed


def test_every_process_has_its_unit_and_what_serves_its_manifest() -> None:
    assert {path.stem for path in UNITS} >= {"hmsdr-agent", "hmsdr-controller", "hmsdr-incidents"}
    assert [path.stem for path in MANIFESTS] == ["agent", "controller"]


def test_every_alerting_rule_asks_for_a_figure_that_we_serve() -> None:
    source = "".join(
        path.read_text() for path in (Path(__file__).parents[2] / "src" / "hmsdr" / "control").glob("*.py")
    )
    served = set(re.findall(r'"(hmsdr_[a-z_]+)"', source))
    asked: set[str] = set()
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            asked |= set(re.findall(r"\b(?:hmsdr_|etcd_|up\b)[a-z_]*", rule["expr"]))
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["annotations"]["summary"]
    assert len(asked) > 15
    assert {name.removesuffix("_total") for name in asked - OTHERS} <= served
    assert asked >= OTHERS


RULES_TEST = """
rule_files: [{rules}]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - {{series: 'hmsdr_controller_leads{{instance="a"}}', values: '1 1 0 0 0 0 0 0 0 0'}}
      - {{series: 'hmsdr_controller_leads{{instance="b"}}', values: '0 0 0 0 0 0 0 0 0 0'}}
      - {{series: 'hmsdr_endpoint_up{{endpoint="lab",instance="a"}}', values: '0x10'}}
      - {{series: 'hmsdr_endpoint_up{{endpoint="lab",instance="b"}}', values: '0x10'}}
      - {{series: 'hmsdr_endpoint_up{{endpoint="lab",instance="c"}}', values: '1x10'}}
      - {{series: 'hmsdr_endpoint_up{{endpoint="web",instance="a"}}', values: '0x10'}}
      - {{series: 'hmsdr_endpoint_up{{endpoint="web",instance="b"}}', values: '1x10'}}
      - {{series: 'hmsdr_endpoint_up{{endpoint="web",instance="c"}}', values: '1x10'}}
    alert_rule_test:
      - {{eval_time: 1m, alertname: HmsdrNobodyLeads, exp_alerts: []}}
      - eval_time: 4m
        alertname: HmsdrNobodyLeads
        exp_alerts:
          - exp_labels: {{severity: critical}}
            exp_annotations:
              summary: "No controller leads: nothing is failed over without a person, and no alert reaches the team's channel"
      - eval_time: 4m
        alertname: HmsdrEndpointDown
        exp_alerts:
          - exp_labels: {{severity: warning, endpoint: lab}}
            exp_annotations: {{summary: "Most sites find lab down"}}
"""


def test_the_alerting_rules_are_read_and_fire_as_meant(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    tests = tmp_path / "tests.yml"
    tests.write_text(RULES_TEST.format(rules=RULES))
    for words in (("check", "rules", str(RULES)), ("test", "rules", str(tests))):
        done = subprocess.run(
            [promtool, *words], capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
