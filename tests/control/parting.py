"""Two regions whose databases part: what the east commits from some moment on never reaches the west. For tests."""

from __future__ import annotations

import os
import signal

import psycopg
from hospital import Hospital, until

from hmsdr.control.proctable import kill_database
from hmsdr.drivers.agent_answers import FollowAnswer


async def slot_is_kept(here: Hospital) -> None:
    """The east has its slot, and the west all that was committed so far."""

    async def kept() -> bool:
        query = "SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ '^hmsdr_lost_' AND confirmed_flush_lsn > '0/0'"
        return await here.east.ask(query) == 1

    await until("the slot", kept)


async def caught_up(here: Hospital, rows: int) -> None:
    """The west has `rows` patients."""

    async def there() -> bool:
        return await here.west.ask("SELECT count(*) FROM patients") == rows

    await until(f"{rows} patients in the west", there)


async def cut_off(here: Hospital) -> int:
    """From here on nothing reaches the west; gives the process that would receive it."""
    receiver = here.west.find(b"walreceiver")
    assert receiver is not None
    os.kill(receiver, signal.SIGSTOP)
    return receiver


async def break_stream(here: Hospital) -> None:
    """The west asks for its slot in vain from here on; unlike `cut_off`, nobody hangs on a frozen process."""

    async def broken() -> bool:
        try:
            await here.east.ask(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active"
            )
            await here.east.ask("SELECT pg_drop_replication_slot('us_west_2_slot')::text")
        except psycopg.errors.ObjectInUse:
            return False
        return True

    await until("the stream is broken", broken)


async def west_takes_over(here: Hospital, receiver: int | None, *, fenced: bool = True) -> int:
    """The east is fenced (or all of it killed, agent too), the west promoted without what it never saw; gives the epoch."""
    record = await here.revoke()
    if fenced:
        receipt = await here.east.client.fence(
            epoch=record.epoch, reason="t", run="t", clean=False, deadline=30
        )
    else:
        here.east.kill_agent()
        kill_database(str(here.east.data), 10)
    if receiver is not None:
        await _forget_unread(here, receiver)
    if fenced:
        await here.prove(receipt)
    else:
        await here.prove_waited(record.epoch, 1e6)
    epoch = (await here.grant(here.west)).epoch
    await here.west.client.promote(epoch=epoch, min_lsn=None, deadline=20)
    await here.west.ask("INSERT INTO patients (name) VALUES ('only in the west') RETURNING id")
    return epoch


async def _forget_unread(here: Hospital, receiver: int) -> None:
    """What the receiver had not read yet is gone with it; a standby that crashes is started again."""
    crashed = here.west.postmaster()
    os.kill(receiver, signal.SIGKILL)

    async def again() -> bool:
        return here.west.postmaster() != crashed and (await here.west.status()).database.state == "standby"

    await until("the west started again", again)


async def follow(here: Hospital, epoch: int, *, word: tuple[str, str] | None = None) -> FollowAnswer:
    """The east is told to follow the west."""
    return await here.east.client.follow(
        epoch=epoch,
        primary_host=here.west.host,
        primary_port=5432,
        slot="us_east_1_slot",
        deadline=90,
        without_lost_rows=word,
    )
