"""What is known of the gap before a promotion: also when the stream broke long before the primary died."""

from __future__ import annotations

import pytest
from hospital import EAST, WEST, Open, until
from parting import break_stream

from hmsdr.control.proctable import kill_database
from hmsdr.decide.gates import LagSeen
from hmsdr.runbook import observe
from hmsdr.runbook.systems import Systems


@pytest.mark.req("FM-1")
async def test_the_last_known_gap_comes_from_the_other_agent_when_the_stream_is_gone(hospital: Open) -> None:
    here = await hospital()
    await here.east_is_primary()

    await break_stream(here)
    await here.east.ask(
        "INSERT INTO patients (name) SELECT repeat('x', 1000) FROM generate_series(1, 3000) RETURNING id"
    )
    written = int(str(await here.east.ask("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")))

    async def known() -> bool:
        return ((await here.west.status()).replication.primary_lsn or 0) >= written

    await until("the west knows where the east was", known)
    here.east.kill_agent()
    kill_database(str(here.east.data), 10)
    here.west.kill_agent()
    here.west.start()  # nobody could be asked now
    await here.west.wait_state("standby")
    systems = Systems(here.book, here.store)
    try:
        seen = await observe._lag(systems, EAST, WEST)
    finally:
        await systems.close()
    # The figures of the lag ended with the life that measured them; where the primary was, is kept.
    assert isinstance(seen, LagSeen)
    assert seen.seconds is None
    assert seen.gap is not None
    assert seen.gap.bytes > 3_000_000
    assert 0 <= seen.gap.age.total_seconds() < 60
