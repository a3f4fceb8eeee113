"""A database is brought back from its bucket: beside what is there, then in its place, a standby; or refused, and nothing is touched."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bank import Bank, Opened
from hospital import WEST, until

from hmsdr.backup.fetch import Target
from hmsdr.backup.findings import Kind, UnfitError
from hmsdr.backup.restore import Restored, Restorer
from hmsdr.control.locks import lock_data_directory
from hmsdr.errors import RefusedError

SCRIPT = Path(__file__).parents[2] / "scripts" / "restore-database.sh"


def restorer(bank: Bank, region: str = WEST) -> Restorer:
    return Restorer(bank.playbook, region, bank.objects, bank.servers[region], bank.said.append)


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.mark.req("RC-2")
async def test_a_lost_standby_comes_back_from_the_bucket_and_follows(open_banks: Opened) -> None:
    bank = await open_banks()
    await bank.both()
    await bank.admit(100)
    await bank.back_up()
    await bank.admit(50)
    await bank.archived()
    west = bank.servers[WEST]
    await west.kill(10)
    before = files(west.directory)
    (name,) = [key for _, key in bank.read() if key.endswith(".json") and key.count("/") == 1][:1]
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", SCRIPT, name, "--region", WEST, "--data-directory", west.directory, "--playbook", bank.path],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ, "HMSDR_REGION": ""},
    )
    assert done.returncode == 0, done.stderr
    (kept,) = west.directory.parent.glob("data.before-*")
    assert files(kept) == before
    assert (west.directory / "standby.signal").exists()
    assert not list(west.directory.glob("*scratch*"))
    assert not list(west.directory.parent.glob(".data.hmsdr-restore*"))
    await bank.start(WEST, writable=False)

    async def follows() -> bool:
        return await bank.sql("SELECT count(*) FROM patients", WEST) == 150

    await until("the restored standby has everything", follows, 60)
    await bank.admit(1)

    async def streams() -> bool:
        return await bank.sql("SELECT count(*) FROM patients", WEST) == 151

    await until("it streams", streams, 60)


@pytest.mark.req("RC-2")
async def test_a_point_in_time_is_restored_beside(open_banks: Opened) -> None:
    bank = await open_banks()
    await bank.both()
    await bank.admit(100)
    await bank.back_up()
    lsn = await bank.admit(20)
    moment = datetime.fromisoformat(str(await bank.sql("SELECT clock_timestamp()")))
    await bank.sql("DELETE FROM patients")
    await bank.archived()
    into = bank.directory / "restored"
    done = await restorer(bank).run(Target(lsn=lsn), wanted=None, into=into)
    assert done.directory == into
    assert done.replaced is None
    assert await counted(bank, into) == 120
    by_time = bank.directory / "by-time"
    await restorer(bank).run(Target(time=moment.astimezone(UTC)), wanted=None, into=by_time)
    assert await counted(bank, by_time) == 120


async def counted(bank: Bank, directory: Path) -> int:
    """What a restored directory holds, read by PostgreSQL's single process."""
    server = bank.east.beside(directory)
    (directory / "standby.signal").unlink()
    given = b"COPY (SELECT 'there are ' || count(*) FROM patients) TO STDOUT\n"
    status, output, errors = await server.tool(
        "postgres", "--single", "-c", "archive_mode=off", "-D", directory, "hms", given=given, deadline=60
    )
    assert status == 0, errors
    return int(output.rpartition("there are ")[2].split()[0])


async def refused(bank: Bank, *arguments: object, kind: Kind | None = None, **named: object) -> str:
    """The words of a refusal, after which everything is as it was."""
    directory = bank.servers[WEST].directory
    before, around = files(directory), sorted(directory.parent.iterdir())
    with pytest.raises((RefusedError, UnfitError)) as caught:
        await restorer(bank).run(*arguments, **named)  # type: ignore[arg-type]
    assert files(directory) == before
    assert [path for path in sorted(directory.parent.iterdir()) if path not in around] in (
        [],
        [directory.with_name(".data.hmsdr-agent.lock")],
    )
    if kind is not None:
        assert isinstance(caught.value, UnfitError)
        assert caught.value.kind is kind
    assert caught.value.status == 2
    return str(caught.value)


@pytest.mark.req("RC-2")
async def test_what_must_not_be_restored_is_refused_and_nothing_is_touched(full_bank: Bank) -> None:
    bank, west = full_bank, full_bank.servers[WEST]
    with pytest.raises(RefusedError, match="runs"):
        await restorer(bank).run(Target(), wanted=None, into=None)
    await west.stop_fast(30)
    await west.kill(10)
    try:
        point = Target(lsn=1 << 30)
        assert "--into" in await refused(bank, point, wanted=None, into=None)
        assert "exists" in await refused(bank, point, wanted=None, into=west.directory)
        assert "20200101" in await refused(
            bank, Target(), wanted="20200101T000000", into=None, kind=Kind.NONE
        )
        lock = lock_data_directory(west.directory, "agent")
        assert "keeps it" in await refused(bank, Target(), wanted=None, into=None)
        os.close(lock)
        control = west.directory / "global" / "pg_control"
        kept = control.read_bytes()
        changed = bytearray(kept)
        changed[0] ^= 1
        control.write_bytes(bytes(changed))  # what was there is another system
        assert "system" in await refused(bank, Target(), wanted=None, into=None, kind=Kind.SYSTEM)
        control.write_bytes(kept)
    finally:
        await bank.start(WEST, writable=False)


async def test_a_restore_that_dies_half_way_leaves_what_was_there_and_can_be_done_again(
    open_banks: Opened,
) -> None:
    bank = await open_banks()
    await bank.both()
    await bank.admit(30)
    await bank.back_up()
    await bank.archived()
    west = bank.servers[WEST]
    await west.kill(10)
    before = files(west.directory)
    words = ["backup", "restore-database", "--region", WEST, "--data-directory", str(west.directory)]
    process = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-m", "hmsdr", *words, "--playbook", str(bank.path)],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if b"replaying" in line:
            break
    process.kill()
    process.wait()
    assert files(west.directory) == before
    done: Restored = await restorer(bank).run(Target(), wanted=None, into=None)
    assert done.replaced is not None
    assert files(done.replaced) == before
    assert not list(west.directory.parent.glob(".data.hmsdr-restore*"))
