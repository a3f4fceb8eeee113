"""The isolated copy: nothing in it leads back to the real database, it needs room, and a crash leaves nothing for long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hmsdr.control import bootstrap, isolated
from hmsdr.control.isolated import Isolated
from hmsdr.control.proctable import database_processes
from hmsdr.control.programs import postgres_bin
from hmsdr.control.server import PostgresServer
from hmsdr.control.unprivileged import choose
from hmsdr.errors import FailedError


def server_of(place: Path, template: Path) -> PostgresServer:
    bootstrap.clone(template, place / "data", choose())
    return PostgresServer(place / "data", postgres_bin(), choose(), place / "log")


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


async def test_a_copy_is_asked_and_the_real_one_is_left_as_it_is(tmp_path: Path, template: Path) -> None:
    server = server_of(tmp_path, template)
    with (server.directory / "postgresql.conf").open("a") as conf:
        conf.write(
            f"data_directory = '{server.directory}'\narchive_mode = on\narchive_command = 'touch {tmp_path}/x'\n"
        )
    before = content(server.directory)
    out = tmp_path / "out"
    async with Isolated(server, tmp_path).copied() as copy:
        assert not (copy.directory / "standby.signal").exists()
        await isolated.ask(
            copy,
            "hms",
            [
                "INSERT INTO patients (name) VALUES ('x')",
                f"COPY (SELECT current_setting('data_directory')) TO '{out}'",
            ],
        )
        assert out.read_text().strip() == str(copy.directory)
        assert not database_processes(str(copy.directory))
    assert content(server.directory) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


async def test_what_lies_elsewhere_is_copied_and_not_shared(tmp_path: Path, template: Path) -> None:
    """WAL on a disk of its own, a tablespace: a copy that only had the links would write to the real files."""
    server = server_of(tmp_path, template)
    wal = tmp_path / "wal"
    (server.directory / "pg_wal").rename(wal)
    (server.directory / "pg_wal").symlink_to(wal)
    space = tmp_path / "space"
    space.mkdir()
    (server.directory / "pg_tblspc" / "16999").symlink_to(space)
    before = content(wal)
    async with Isolated(server, tmp_path).copied() as copy:
        assert not [path for path in copy.directory.rglob("*") if path.is_symlink()]
        await isolated.ask(copy, "hms", ["INSERT INTO patients (name) VALUES ('x')"])
    assert content(wal) == before


async def test_without_room_nothing_is_copied_and_the_figures_are_told(
    tmp_path: Path, template: Path
) -> None:
    server = server_of(tmp_path, template)
    with pytest.raises(FailedError, match=r"\d+ MiB are needed there and \d+ MiB are free"):
        async with Isolated(server, tmp_path, margin=1 << 60).copied():
            raise AssertionError("there was no room")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


async def test_an_error_in_the_copy_is_told_without_what_was_asked(tmp_path: Path, template: Path) -> None:
    server = server_of(tmp_path, template)
    async with Isolated(server, tmp_path).copied() as copy:
        with pytest.raises(FailedError, match="division by zero") as failed:
            await isolated.ask(copy, "hms", ["SELECT 'Secret Patient', 1 / 0"])
        assert "Secret" not in str(failed.value)


async def test_what_a_crash_left_is_removed_with_its_process(tmp_path: Path, template: Path) -> None:
    server = server_of(tmp_path, template)
    copies = Isolated(server, tmp_path)
    copy = copies.place / "data"
    bootstrap.clone(template, copy, choose())
    program = "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE); print(flush=True); input()"
    (copy / "standby.signal").unlink()
    started = choose().command(postgres_bin() / "postgres", "--single", "-D", copy, "hms")
    with subprocess.Popen(  # noqa: ASYNC220 - it outlives the one who starts it, as after a crash
        [sys.executable, "-c", program, *started], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        while not database_processes(str(copy)):
            assert other.poll() is None
        await copies.sweep()
        assert not database_processes(str(copy))
        other.kill()
    assert not copies.place.exists()
