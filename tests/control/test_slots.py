"""After a hand-over the old primary keeps no slot for the region that followed it: its WAL would fill the disk."""

from __future__ import annotations

import pytest
from hospital import Hospital, Open, Region, until
from parting import follow

SLOT = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'"
EAST_HAS, WEST_HAS = SLOT.format("us_west_2_slot"), SLOT.format("us_east_1_slot")


async def handed_over(here: Hospital, old: Region, new: Region) -> int:
    record = await here.revoke()
    receipt = await old.client.fence(epoch=record.epoch, reason="t", run="t", clean=True, deadline=30)
    await here.prove(receipt, handover_to=(await new.status()).instance)
    epoch = (await here.grant(new)).epoch
    await new.client.promote(epoch=epoch, min_lsn=receipt.last_lsn, deadline=20)
    return epoch


@pytest.mark.req("DB-1")
async def test_a_stale_slot_is_dropped_when_the_old_primary_follows_and_made_again_when_it_is_promoted(
    hospital: Open,
) -> None:
    here = await hospital()
    await here.east_is_primary()
    assert await here.east.ask(EAST_HAS) == 1
    epoch = await handed_over(here, here.east, here.west)
    answer = await follow(here, epoch)
    assert answer.rewound is False

    async def gone() -> bool:
        return await here.east.ask(EAST_HAS) == 0

    await until("the stale slot is gone", gone, 20)
    assert await here.west.ask(WEST_HAS) == 1, "the one that is in use stays"
    await handed_over(here, here.west, here.east)

    async def there() -> bool:
        return await here.east.ask(EAST_HAS) == 1

    await until("the slot is made again", there, 20)
