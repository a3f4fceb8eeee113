"""What must not begin is refused with exit status 2 and a clear word; a store that is only silent is waited for."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from etcd_cluster import Cluster
from hospital import EAST, KEY, Open, free_network, make_template, until

from commands import COMMAND, command_environment
from hmsdr.log.etcd import EtcdStore

WITNESS = "us-east-2"


async def refused(*command: str, seconds: float = 40) -> str:
    """The command ends with 2, and without a traceback; gives what it said."""
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=seconds, check=False,
        env=command_environment(None),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return str(done.stderr)


@pytest.mark.req("FA-4")
async def test_an_agent_whose_data_is_of_another_system_does_not_begin(
    hospital: Open, tmp_path: Path
) -> None:
    here = await hospital()
    await here.east_is_primary()
    here.east.agent.send_signal(signal.SIGTERM)
    await asyncio.to_thread(here.east.agent.wait, 20)
    shutil.rmtree(here.east.data)
    (tmp_path / "other").mkdir()
    stranger = await asyncio.to_thread(make_template, tmp_path / "other")
    stranger.rename(here.east.data)
    said = await refused(*here.east.command())
    assert "is of system" in said
    assert "--state-directory" in said
    assert not here.east.processes()


async def test_an_agent_of_a_region_that_there_is_not_is_refused(hospital: Open) -> None:
    here = await hospital()
    command = ["us-east-3" if word == EAST else word for word in here.east.command()]
    assert "the playbook has no such region. Did you mean 'us-east-1'?" in await refused(*command)


async def test_an_agent_is_not_given_what_another_instance_remembers(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    here.west.kill_agent()
    shutil.copy(here.east.state / "agent.json", here.west.state / "agent.json")
    assert "it belongs to postgres-primary-0@us-east-1" in await refused(*here.west.command())


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        ("missing", "there is no such file"),
        ("garbage", "it is something else: file is not a database"),
        ("another", "it is something else: no such table"),
        ("newer", "it has format 99"),
    ],
)
async def test_a_store_that_is_wrong_is_refused(hospital: Open, spoil: str, found: str) -> None:
    here = await hospital()
    _spoil(here.store.path, spoil)
    said = await refused(*here.east.command())
    assert found in said
    assert str(here.store.path) in said
    assert not here.east.processes()


def _spoil(path: Path, how: str) -> None:
    if how == "newer":
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE meta SET format = 99")
        return
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()
    if how == "garbage":
        path.write_text("this is a letter to a friend, and longer than the head of a database would be " * 20)
    elif how == "another":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE recipes (name text)")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, 1)
    try:
        cluster.until_ready()
        yield cluster
    finally:
        cluster.end()


def playbook(directory: Path, etcd: Cluster) -> Path:
    """Of a hospital with three sites, of which nothing else is up."""
    net = free_network()
    (directory / "agent.key").write_text(KEY)
    regions = {
        name: {
            "postgres": {"host": f"{net}.{number}", "service_host": f"{net}.{number}", "password": None},
            "agent": {"url": f"http://{net}.{number}:8300", "key": "${file:agent.key}"},
            "controller": {"url": f"http://{net}.{number}:7444"},
        }
        for number, name in ((1, EAST), (2, "us-west-2"))
    }
    path = directory / "sites.yaml"
    text = {
        "extends": "hms",
        "store": {"kind": "etcd", "path": "copy.db", "etcd": {"endpoints": {WITNESS: etcd.clients[0]}}},
        "witness": {"name": WITNESS, "controller": {"url": f"http://{net}.3:7444"}},
        "regions": regions,
    }
    path.write_text(yaml.safe_dump(text))
    return path


async def test_a_controller_refuses_a_store_of_another_version_and_waits_for_one_that_is_silent(
    etcd: Cluster, tmp_path: Path
) -> None:
    store = await EtcdStore.open(etcd.etcd(), create=True)
    await store._api.transaction("spoiling it", [], {"/hmsdr/format": "99"}, [])
    await store.close()
    file = playbook(tmp_path, etcd)
    words = ["--playbook", str(file), "--site", WITNESS, "--state-directory", str(tmp_path / "state")]
    command = [*COMMAND, "controller", *words]
    assert "it has format 99, this version writes format 1" in await refused(*command)

    etcd.signal(0, signal.SIGSTOP)
    url = f"{yaml.safe_load(file.read_text())['witness']['controller']['url']}/healthz"
    with (tmp_path / "log").open("wb") as log:
        waiting = subprocess.Popen(  # noqa: ASYNC220 - a fork, not a wait
            command, stdout=log, stderr=log, env=command_environment(None)
        )
    try:

        async def lives() -> bool:
            return await asyncio.to_thread(_answers, url)

        await until("it lives without a store", lives, 30)
        assert waiting.poll() is None
        etcd.signal(0, signal.SIGCONT)
        # As soon as it can look, it sees that the store is not its own, and ends.
        assert await asyncio.to_thread(waiting.wait, 30) == 2
    finally:
        etcd.signal(0, signal.SIGCONT)
        waiting.kill()
        waiting.wait()
    said = (tmp_path / "log").read_text()
    assert "it has format 99" in said
    assert "Traceback" not in said


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
