"""What the drill of a lost database makes of what it sees: when it is dead, why it is moved, whether users were spared."""

from __future__ import annotations

from dataclasses import replace

import pytest
from story import EAST, FAULT, WEST, entry, moment

from hmsdr.cli.drill import BY_THEMSELVES, SCENARIOS
from hmsdr.control.health import Area, Finding
from hmsdr.drill.database_failure import NAME, database_dead, stayed, trigger_of
from hmsdr.drill.going_home import unnoticed
from hmsdr.lab.hms.ledger import Entry

WELL = Finding(Area.USERS, f"database {EAST}", True, "primary")
DEAD = replace(WELL, well=False, observed="connection refused")
STANDBY = Finding(Area.PROTECTION, f"standby {WEST}", False, "standby, not streaming, lag 1.0 s")
REDIS = Finding(Area.PROTECTION, f"redis {EAST}", True, "role master")


@pytest.mark.req("TV-5")
def test_only_the_database_of_that_region_counts() -> None:
    assert database_dead([STANDBY, DEAD], EAST)
    assert not database_dead([STANDBY, WELL], EAST)
    assert not database_dead([DEAD], WEST)
    assert not database_dead([], EAST), "nothing asked is no death"


@pytest.mark.req("TV-5")
def test_the_trigger_says_what_users_lack_and_how_the_standby_is() -> None:
    found = trigger_of([DEAD, STANDBY, REDIS], EAST, since=FAULT + 0.5, now=FAULT + 4.0)
    assert (found["kind"], found["region"], found["seen_seconds"]) == ("database-failed", EAST, 3.5)
    assert found["decided_at"] == moment(4.0).isoformat()
    assert found["evidence"] == {DEAD.name: "connection refused", STANDBY.name: STANDBY.observed}


def served(at: float, region: str = EAST, epoch: int = 5) -> Entry:
    return replace(entry(at, epoch=epoch), region=region)


@pytest.mark.req("TV-5")
def test_users_stay_and_write_to_the_new_primary_or_it_says_what_is_not_so() -> None:
    since = FAULT + 10
    good = stayed([served(5, epoch=4), served(11), served(12)], since, EAST, 4)
    assert (good.well, good.found) == (True, f"2 requests served, 2 of them writes, all in {EAST}")
    moved = stayed([served(11), served(12, region=WEST)], since, EAST, 4)
    assert (moved.well, f"by {WEST}" in moved.found) == (False, True)
    old = stayed([served(11), served(12, epoch=4)], since, EAST, 4)
    assert (old.well, "1 writes under an epoch that is over" in old.found) == (False, True)
    assert not stayed([], since, EAST, 4).well, "nobody served is nothing shown"
    assert not stayed([replace(served(11), kind="read", epoch=None)], since, EAST, 4).well


@pytest.mark.req("TV-5", "SW-2")
def test_the_way_home_is_noticed_by_one_request_that_failed() -> None:
    calm = [entry(20.5), entry(21.5), entry(25.0, ok=False)]
    found = unnoticed(calm, FAULT + 20, FAULT + 22)
    assert (found.well, found.found) == (True, "0 of 2 requests failed in 2.0 s")
    assert not unnoticed([*calm, entry(21.0, ok=False)], FAULT + 20, FAULT + 22).well
    # An answer about data that is not there is a lost write, and is counted as that.
    assert unnoticed([*calm, entry(21.0, ok=False, error="missing")], FAULT + 20, FAULT + 22).well
    assert not unnoticed([], FAULT + 20, FAULT + 22).well, "nobody asked is nothing shown"


@pytest.mark.req("TV-5")
def test_it_can_be_practised_by_hand_and_by_itself() -> None:
    by_hand, by_itself = SCENARIOS[NAME], BY_THEMSELVES[NAME]
    assert (by_hand.fault, by_hand.recovers, by_hand.ha) == ("database-killed", True, False)
    assert (by_itself.fault, by_itself.recovers, by_itself.ha) == ("database-killed", True, True)
