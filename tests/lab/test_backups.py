"""Backups of a whole lab: tried out while the hospital works, and what is lost of a cluster comes back until its health answers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hmsdr.lab import probe
from hmsdr.lab.layout import Layout
from hmsdr.lab.shell import variables

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
EAST = "us-east-1"


def ran(lab: Layout, *words: str | Path, status: int = 0) -> str:
    done = subprocess.run(
        words,
        env={**os.environ, **variables(lab)},
        cwd=lab.directory,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.mark.req("TV-1")
async def test_the_first_backup_is_tried_out_beside_the_running_hospital(lab: Layout, tmp_path: Path) -> None:
    listed = json.loads(await asyncio.to_thread(ran, lab, "hmsdr", "backup", "list", "--json"))
    assert {entry["bucket"] for entry in listed["backups"]} == {f"hms-backups-{name}" for name in lab.regions}
    words = ("hmsdr", "backup", "verify", "--json", "--scratch", str(tmp_path / "scratch"))
    verdict = json.loads(await asyncio.to_thread(ran, lab, *words))
    assert verdict["compared"]
    assert {"public.patients", "public.invoices"} <= set(verdict["tables"])
    assert verdict["restore_seconds"] > 0
    assert await probe.answers(lab.regions[EAST].ingress_http, "/patient-service/health", deadline=5)


@pytest.mark.req("RC-4")
async def test_lost_services_are_restored_run_and_answer(lab: Layout) -> None:
    kubectl = shutil.which("kubectl")
    assert kubectl is not None, "make setup brings it"
    await asyncio.to_thread(ran, lab, "hmsdr", "backup", "run", "--only", "kubernetes", "--region", EAST)
    for what in ("deployment/billing-service", "service/billing-service"):
        await asyncio.to_thread(ran, lab, kubectl, "delete", what, "-n", "hms-system", f"--context={EAST}")
    file = f"kubernetes_backup_{datetime.now(UTC):%Y%m%d}.tar.gz"
    told = await asyncio.to_thread(ran, lab, SCRIPTS / "restore-kubernetes.sh", file)
    assert "2 created, 0 replaced" in told
    where, ends = lab.regions[EAST].ingress_http, time.monotonic() + 60
    while not await probe.answers(where, "/billing-service/health", deadline=2):
        assert time.monotonic() < ends, "it does not answer within a minute"
        await asyncio.sleep(0.2)
