"""``hmsdr plan corruption`` as a face: what a person may write, the commands that it prints, and when it refuses."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from books import SECRETS

from hmsdr.backup.findings import Kind, UnfitError
from hmsdr.cli.corruption import as_map, before_of, commands, map_lines, refuse
from hmsdr.decide.corruption import Before, Copy, diagnose
from hmsdr.decide.recovery import LocalData
from hmsdr.decide.soundness import DamageKind, Health, Sign
from hmsdr.drivers.agent_answers import DataAnswer
from hmsdr.drivers.errors import TemporaryError
from hmsdr.errors import RefusedError
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.recovery.corruption import Mapped, _room

EAST, WEST = "us-east-1", "us-west-2"


@pytest.fixture(scope="module")
def playbook() -> Playbook:
    return load("hms", environ=SECRETS)


def mapped(
    primary: Health | None, standby: Health | None, *, before: Before | None = None, whole: bool = True
) -> Mapped:
    ours = Copy(EAST, True, primary, 100, None, whole, "no answer within 10 s")
    theirs = Copy(WEST, False, standby, 100, None, whole, "no answer within 10 s")
    return Mapped(EAST, WEST, 3, diagnose(ours, theirs, before), (), {}, ())


def damaged(kind: DamageKind, where: str) -> Health:
    return Health((Sign(kind, where, "2026-01-01T12:00:00+00:00", "broken", 80),), 90)


def test_a_moment_is_a_time_with_its_zone_or_an_lsn() -> None:
    assert before_of(None) is None
    assert before_of("2026-01-01T02:15:00+01:00") == Before(time=datetime(2026, 1, 1, 1, 15, tzinfo=UTC))
    assert before_of("0/3000148") == Before(lsn=0x3000148)


@pytest.mark.parametrize("word", ["yesterday", "2026-01-01T02:15:00", "9999-01-01T00:00:00Z", "0/x", "/", ""])
def test_what_is_no_moment_is_refused_with_how_to_write_one(word: str) -> None:
    with pytest.raises(RefusedError) as refused:
        before_of(word)
    assert refused.value.remedy


def test_indexes_are_built_anew_under_their_whole_name_and_then_everything_is_checked(
    playbook: Playbook,
) -> None:
    broken = damaged(DamageKind.INDEX, 'public.Odd "name"; DROP')
    first, second = commands(mapped(broken, Health((), 95)), playbook)
    assert shlex.split(first)[-1] == 'REINDEX INDEX CONCURRENTLY "public"."Odd ""name""; DROP"'
    assert second.startswith(f"hmsdr damage clear {EAST} ")
    catalogue = commands(mapped(damaged(DamageKind.INDEX, "pg_catalog.pg_class_oid_index"), None), playbook)
    assert shlex.split(catalogue[0])[-1] == 'REINDEX INDEX "pg_catalog"."pg_class_oid_index"'


def test_no_restore_is_printed_beside_a_sound_copy(playbook: Playbook) -> None:
    page = damaged(DamageKind.PAGE, "base/5/16384")
    assert commands(mapped(page, Health((), 95)), playbook) == [f"hmsdr plan failover {EAST} {WEST}"]
    assert commands(mapped(Health((), 95), page), playbook)[-1] == f"hmsdr recover {WEST}"


def test_without_an_answer_it_is_refused_with_what_to_do(playbook: Playbook) -> None:
    page = damaged(DamageKind.PAGE, "base/5/16384")
    silent = mapped(page, None)
    assert commands(silent, playbook) == []
    with pytest.raises(RefusedError) as refused:
        refuse(silent)
    assert "--before" in refused.value.remedy
    nowhere = mapped(page, page)
    assert as_map(nowhere, playbook)["answer"] == "restore"
    assert "Answer: restore" in map_lines(nowhere, playbook)
    with pytest.raises(RefusedError):
        refuse(nowhere)


class Agents:
    """Agents that tell of their data directory; None: one that is silent."""

    def __init__(self, told: dict[str, LocalData | None]) -> None:
        self.told = told

    def agent(self, region: str) -> Any:
        async def data(*, deadline: float) -> DataAnswer:
            if (local := self.told[region]) is None:
                raise TemporaryError("asking", f"no answer within {deadline:g} s", "")
            return DataAnswer(local, "")

        return SimpleNamespace(data=data)


CHOICE: Any = SimpleNamespace(record=SimpleNamespace(id="20260101T120000", system_identifier=7), room=1000)


@pytest.mark.parametrize(
    ("east", "west", "kind"),
    [
        (LocalData(True, system_identifier=7, free=999), None, Kind.SPACE),
        (LocalData(True, system_identifier=8, free=5000), None, Kind.SYSTEM),
        (None, LocalData(True, system_identifier=8, free=5000), Kind.SYSTEM),
    ],
)
async def test_no_room_and_another_database_are_refused_before_anything_is_restored(
    east: LocalData | None, west: LocalData | None, kind: Kind
) -> None:
    systems: Any = Agents({EAST: east, WEST: west})
    with pytest.raises(UnfitError) as refused:
        await _room(systems, mapped(None, None), "going back", CHOICE)
    assert refused.value.kind is kind
    assert refused.value.remedy


async def test_where_nobody_tells_how_much_is_free_that_is_said_and_not_guessed() -> None:
    systems: Any = Agents({EAST: None, WEST: LocalData(True, system_identifier=7, free=5000)})
    assert await _room(systems, mapped(None, None), "going back", CHOICE) is None
    systems = Agents({EAST: LocalData(True, system_identifier=7, free=5000), WEST: None})
    assert await _room(systems, mapped(None, None), "going back", CHOICE) == 5000
