"""`hmsdr reconcile`: counts for people and machines, the file only where somebody names a place, and the exit status."""

from __future__ import annotations

import asyncio
import stat
from typing import Any

from hospital import Hospital, Open
from parting import caught_up, cut_off, follow, slot_is_kept, west_takes_over

from commands import Done, hmsdr


async def command(here: Hospital, *words: Any) -> Done:
    return await asyncio.to_thread(hmsdr, "reconcile", *words, "--playbook", here.directory / "playbook.yaml")


async def test_what_was_lost_is_shown_by_counts_and_fetched_once(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    await slot_is_kept(here)
    quiet = await command(here, "us-west-2")
    assert (quiet.status, quiet.out.strip()) == (
        0,
        "us-west-2 has committed nothing that the present primary never saw",
    )
    await here.east.ask("INSERT INTO patients (name) VALUES ('both') RETURNING id")
    await caught_up(here, 1)
    receiver = await cut_off(here)
    await here.east.ask("INSERT INTO patients (name) VALUES ('Secret Patient') RETURNING id")
    epoch = await west_takes_over(here, receiver)
    shown = await command(here, "us-east-1")
    assert shown.status == 0, shown
    assert "rows         1 in 1 transactions (public.patients 1)" in shown.out
    assert "Secret" not in shown.out
    out = here.directory / "lost.jsonl"
    fetched = await command(here, "us-east-1", "--json", "--out", out)
    (lost,) = fetched.json()["lost"]
    kept = here.east.state / "reconciliation" / lost["file"]
    assert out.read_bytes() == kept.read_bytes()
    assert b"Secret Patient" in out.read_bytes()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    again = await command(here, "us-east-1", "--out", out)
    assert (again.status, "it is there already" in again.err) == (2, True)
    assert (await here.east.status()).database.state == "fenced"
    assert (await follow(here, epoch)).rewound
    assert lost["sha256"] in (await command(here, "us-east-1")).out
    unknown = await command(here, "us-east-2")
    assert (unknown.status, "no such region" in unknown.err) == (2, True)


async def test_what_is_not_all_known_is_a_failure_that_says_so(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()
    await slot_is_kept(here)
    receiver = await cut_off(here)
    await here.east.ask("INSERT INTO patients (name) VALUES ('x') RETURNING id")
    await west_takes_over(here, receiver)
    (slot,) = here.east.data.glob("pg_replslot/hmsdr_lost_*")
    slot.rename(here.directory / "slot")
    shown = await command(here, "us-east-1")
    assert shown.status == 1
    assert "NOT COMPLETE there is no slot" in shown.out
