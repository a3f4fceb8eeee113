"""The control file read directly: it says what pg_controldata says, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmsdr.control import bootstrap, pgcontrol
from hmsdr.control.programs import postgres_bin
from hmsdr.control.server import PostgresServer
from hmsdr.control.unprivileged import choose


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("pgcontrol") / "data"
    bootstrap.initialise(data, postgres_bin(), choose(), sync=False)
    return data


async def test_it_says_what_pg_controldata_says(stopped: Path) -> None:
    server = PostgresServer(stopped, postgres_bin(), choose(), stopped.parent / "log")
    told, found = await server.control(), server.shut_down()
    assert found is not None
    assert told.state == found.state == "shut down"
    for field in ("system_identifier", "checkpoint", "redo", "timeline"):
        assert getattr(told, field) == getattr(found, field) != 0, field


@pytest.mark.parametrize("place", [0, 9, 17, 33, 60, 150, 290])
def test_a_damaged_file_says_nothing(stopped: Path, tmp_path: Path, place: int) -> None:
    content = bytearray((stopped / "global" / "pg_control").read_bytes())
    content[place] ^= 1
    (tmp_path / "global").mkdir()
    (tmp_path / "global" / "pg_control").write_bytes(content)
    assert pgcontrol.shut_down(tmp_path) is None


async def test_a_database_that_runs_or_was_killed_says_nothing(stopped: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    bootstrap.clone(stopped, data, choose())
    server = PostgresServer(data, postgres_bin(), choose(), tmp_path / "log")
    settings = {"listen_addresses": "", "unix_socket_directories": str(tmp_path), "fsync": "off"}
    await server.start(writable=False, settings=settings, deadline=20)
    try:
        assert server.shut_down() is None
    finally:
        await server.kill(10)
    assert server.shut_down() is None
    assert PostgresServer(tmp_path / "none", postgres_bin(), choose(), tmp_path / "log").shut_down() is None
