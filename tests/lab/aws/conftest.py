"""The lab's AWS and DNS as real processes on addresses of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from hmsdr.lab.layout import Endpoint, Layout, RegionLayout


def small_layout(directory: Path, net: str) -> Layout:
    """A layout whose shared servers listen on `net`.1 and regions on `net`.2 and .3."""
    regions = {}
    for number, (name, ordinal) in enumerate((("us-east-1", "primary"), ("us-west-2", "secondary")), 2):
        here = f"{net}.{number}"
        regions[name] = RegionLayout(
            name=name, ordinal_name=ordinal, directory=directory / name, pod_network=net,
            ingress_http=Endpoint(here, 18080), ingress_https=Endpoint(here, 18443),
            kubernetes=Endpoint(here, 16443), postgres=Endpoint(here, 15432),
            redis=Endpoint(here, 16379), agent=Endpoint(here, 18300),
        )  # fmt: skip
    return Layout(
        lab_id="test", directory=directory, user=None, regions=regions,
        aws=Endpoint(f"{net}.1", 14566), moto=Endpoint(f"{net}.1", 15000),
        dns=Endpoint(f"{net}.1", 15353), prometheus=Endpoint(f"{net}.1", 19090),
        channels=Endpoint(f"{net}.1", 18600), mail=Endpoint(f"{net}.1", 10025), sites={},
    )  # fmt: skip


def start(module: str, layout: Layout, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, "--lab", str(layout.directory), *more])


def wait_healthy(layout: Layout) -> None:
    ends = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"http://{layout.aws}/__lab/healthz", timeout=1).read()
            urllib.request.urlopen(f"http://{layout.moto}/moto-api/", timeout=1).read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert time.monotonic() < ends, "the lab's AWS did not come up"
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Layout]:
    """A running AWS and DNS; one address block for each worker and module."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    block = sum(request.path.name.encode()) % 200
    made = small_layout(tmp_path_factory.mktemp("aws"), f"127.{100 + worker}.{block}")
    made.save()
    processes = [start("hmsdr.lab.aws", made, "--rate", "1000"), start("hmsdr.lab.dns", made)]
    try:
        wait_healthy(made)
        yield made
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(10)
