"""The unit files and manifests that ship: every option they give exists, every path they probe is served."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from hmsdr.cli.main import cli

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
SERVED = {"/healthz", "/readyz"}


def check(words: list[str]) -> None:
    """Whether `words` would be taken as a command line of ours: each option known, with a value, none missing."""
    command = cli.get_command(click.Context(cli), words[0])
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


def test_both_processes_have_both() -> None:
    assert [path.stem for path in UNITS] == ["hmsdr-agent", "hmsdr-controller"]
    assert [path.stem for path in MANIFESTS] == ["agent", "controller"]
