"""Which server is the primary, by what it says of itself. Pure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hmsdr.lab.hms.service.looking import CLAIM_SECONDS, Seen, refusal, waiting

PRIMARY = Seen(standby=False, read_only=False, instance="a", epoch=3, claimed=True)


@pytest.mark.req("FA-4")
@pytest.mark.parametrize(
    ("seen", "newest", "without", "kind"),
    [
        (PRIMARY, 3, 0.0, None),
        (PRIMARY, 4, 99.0, "old_primary"),
        (replace(PRIMARY, standby=True, read_only=True), 3, 99.0, "read_only"),
        (replace(PRIMARY, read_only=True), 3, 0.0, "read_only"),
        (replace(PRIMARY, claimed=False), 3, 0.0, "no_epoch"),
        (replace(PRIMARY, claimed=False), 3, CLAIM_SECONDS, None),
        (replace(PRIMARY, claimed=False), 4, CLAIM_SECONDS, "old_primary"),
        (replace(PRIMARY, claimed=False, epoch=None), 0, CLAIM_SECONDS, None),
        (replace(PRIMARY, claimed=False, epoch=None), 1, CLAIM_SECONDS, "old_primary"),
    ],
)
def test_who_is_the_primary(seen: Seen, newest: int, without: float, kind: str | None) -> None:
    found = refusal(seen, newest=newest, without_epoch=without)
    assert (found.kind if found else None) == kind


def test_a_wait_has_an_end() -> None:
    query = waiting(0.24, 0.003)
    assert "1..80 LOOP" in query
    assert "pg_sleep(0.003)" in query
