"""What was made anew takes the place of what was there: whole or half done before, with nothing overwritten; slots that are in the way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hospital import EAST, WEST, Hospital, Open, until

from hmsdr.control.proctable import kill_database
from hmsdr.control.rebuilding import has_room, refuse_mount_point, swap
from hmsdr.drivers.errors import PermanentError
from hmsdr.errors import FailedError, RefusedError
from hmsdr.runbook.action import StepContext
from hmsdr.runbook.actions.recovering import SlotArgs, SlotReady
from hmsdr.runbook.systems import Systems


def laid(base: Path, **content: str) -> None:
    for name, text in content.items():
        place = base / name.replace("_", "/")
        place.mkdir(parents=True)
        (place / "PG_VERSION").write_text(text)


def found(base: Path) -> dict[str, str]:
    return {str(path.parent.relative_to(base)): path.read_text() for path in base.rglob("PG_VERSION")}


@pytest.mark.req("RC-2")
@pytest.mark.parametrize(
    "before",
    [
        {"data": "old", "place_data": "new"},
        {"kept": "old", "place_data": "new"},  # died between the two renames
        {"kept": "old", "data": "new"},  # died after them
    ],
)
def test_wherever_it_died_the_swap_is_finished(tmp_path: Path, before: dict[str, str]) -> None:
    laid(tmp_path, **before)
    for _ in range(2):
        swap(tmp_path / "place", tmp_path / "data", tmp_path / "kept")
        assert found(tmp_path) == {"data": "new", "kept": "old"}


def test_with_nothing_there_before_nothing_is_kept(tmp_path: Path) -> None:
    laid(tmp_path, place_data="new")
    swap(tmp_path / "place", tmp_path / "data", tmp_path / "kept")
    assert found(tmp_path) == {"data": "new"}


def test_room_is_looked_at_first_and_what_may_be_removed_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.before-20261125T010203").mkdir()
    (tmp_path / "place").mkdir()
    has_room("copying", tmp_path / "place", 0)
    with pytest.raises(FailedError, match="MiB are free") as caught:
        has_room("copying", tmp_path / "place", 1 << 60)
    assert "data.before-20261125T010203" in caught.value.remedy
    refuse_mount_point(tmp_path)
    with pytest.raises(RefusedError, match="a file system of its own"):
        refuse_mount_point(Path("/proc"))


async def context(here: Hospital) -> StepContext:
    systems = Systems(here.book, here.store)
    return StepContext(systems, "r", asyncio.get_running_loop().time() + 30, progress=lambda _: None)


@pytest.mark.req("RC-2")
async def test_a_slot_is_made_one_without_its_wal_made_anew_and_a_logical_one_refused(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    step, args, slot = await context(here), SlotArgs(region=WEST, primary=EAST), "us_west_2_slot"
    try:
        assert (await SlotReady().check(step, args)).holds
        here.west.kill_agent()
        here.west.agents.clear()
        await until("the west is down", lambda: _gone(here))
        async with await here.east.connect() as connection:
            await connection.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
            await connection.execute("ALTER SYSTEM SET wal_keep_size = 0")
            await connection.execute("SELECT pg_reload_conf()")

            async def lost() -> bool:
                await connection.execute("SELECT pg_switch_wal()")
                await connection.execute("INSERT INTO patients (name) VALUES ('x')")
                await connection.execute("CHECKPOINT")
                query = f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{slot}'"
                return await (await connection.execute(query.encode())).fetchone() == ("lost",)

            await until("the slot has lost its WAL", lost, 30)
            assert not (await SlotReady().check(step, args)).holds
            assert dict(await SlotReady().act(step, args)) == {"slot": slot, "made": True, "dropped": True}
            assert (await SlotReady().check(step, args)).holds
            await connection.execute(f"SELECT pg_drop_replication_slot('{slot}')".encode())
            await connection.execute(
                f"SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')".encode()
            )
        with pytest.raises(PermanentError, match="is a logical one"):
            await SlotReady().check(step, args)
    finally:
        await step.systems.close()


async def _gone(here: Hospital) -> bool:
    """The standby of an agent that was killed lives on: it is ended."""
    kill_database(str(here.west.data), 10)
    return not here.west.processes()
