"""Two agents with one region's name, on two machines: the second takes nothing, says why and ends; the first goes on writing."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from hospital import MARK, Hospital, Open, Region, until

from commands import command_environment
from hmsdr.control import bootstrap
from hmsdr.control.unprivileged import choose


def second(here: Hospital, region: Region, place: Path, data: Path) -> subprocess.Popen[str]:
    """Another agent of `region`, with a data directory, a memory and a port of its own."""
    words = ["--data-directory", str(data), "--state-directory", str(place / "s")]
    command = region.command()
    command = [*command[: command.index("--data-directory")], *words, "--listen", f"{region.host}:8399"]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**command_environment(None), MARK: here.identity},
    )


@pytest.mark.req("FA-4")
@pytest.mark.parametrize("data", ["empty", "a copy"])
async def test_a_second_agent_of_a_region_takes_nothing_from_the_first(
    hospital: Open, template: Path, tmp_path: Path, data: str
) -> None:
    here = await hospital(lease="4s")
    await here.east_is_primary()
    first = here.holder(await here.east.status())
    place = tmp_path / "elsewhere"
    place.mkdir()
    if data == "a copy":
        bootstrap.clone(template, place / "data", choose())
    stranger = second(here, here.east, place, place / "data")
    try:
        said = (await asyncio.wait_for(asyncio.to_thread(stranger.communicate), 60))[1]
    finally:
        stranger.kill()
    assert stranger.returncode == 2, said
    assert "renews the right to write in its name" in said
    assert "Traceback" not in said
    record = await here.store.read_authority()
    assert record.holder == first, "nobody else ever held it"
    assert (await here.east.status()).database.state == "primary"
    assert await here.east.ask("INSERT INTO patients (name) VALUES ('x') RETURNING 1") == 1


@pytest.mark.req("FA-4")
async def test_a_life_that_died_between_its_grant_and_the_promotion_is_followed_by_the_next(
    hospital: Open,
) -> None:
    """What the disk does not know is taken over all the same, once nobody renews it."""
    here = await hospital(lease="4s")
    here.east.start()
    await here.east.wait_state("standby")
    await here.grant(here.east)
    here.east.kill_agent()
    here.east.start()

    async def adopted() -> bool:
        status = await here.east.status()
        return status.lease.held and status.lease.epoch == 1

    await until("the next life has it", adopted, 30)
    answer = await here.east.client.promote(epoch=1, min_lsn=None, deadline=20)
    assert not answer.already
