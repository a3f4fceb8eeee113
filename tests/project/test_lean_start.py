"""What a command and the lab's kubelet must not import to start: each costs a tenth of a second at three in the morning."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

COMMANDS = ("failover", "switchback", "recover", "run", "health_check")
CLIENTS = {"aiohttp", "rich", "boto3", "botocore", "psycopg", "dns", "kubernetes_asyncio"}


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ([f"hmsdr.cli.{name}" for name in COMMANDS], CLIENTS),
        (["hmsdr.lab.kube.server", "hmsdr.lab.kube.kubelet"], {"psycopg", "redis", "rich", "boto3"}),
    ],
    ids=["commands", "kubelet"],
)
def test_what_is_not_needed_at_the_start_is_not_imported(modules: list[str], unwanted: set[str]) -> None:
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps([name for name in sys.modules if '.' not in name]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not unwanted & set(json.loads(done.stdout))
