"""The war room: opened once, its summary posted anew when it has changed, and not before the last one has arrived."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from casebook import BOOK, Log, declared
from hmsdr.check.playbook_people import check
from hmsdr.decide.incident import Incident
from hmsdr.decide.incidents import room_key
from hmsdr.decide.response import checklist
from hmsdr.decide.warroom import Summary, due
from hmsdr.playbook.model import Playbook
from hmsdr.playbook.people import WarRoom

ROOM = WarRoom(channel="slack:#war-room", bridge="https://meet.hospital.example/7")


def with_room(**change: Any) -> Playbook:
    channels = BOOK.channels.model_copy(update={"war_room": ROOM, **change})
    return BOOK.model_copy(update={"channels": channels})


WITH = with_room()


def summary(log: Log, book: Playbook = WITH) -> Summary | None:
    return due(log.incident(), book, log.now, "us-east-1")


def queue(log: Log) -> Summary:
    found = summary(log)
    assert found is not None
    said = {"round": found.round, "number": found.number, "digest": found.digest}
    log.add("incident.summarized", "INC-1", "keeper", **said)
    return found


def arrive(log: Log, found: Summary, channel: str = "slack:#war-room") -> None:
    key = room_key("INC-1", found.round, found.number)
    log.add("incident.met", "INC-1", "keeper", key=key, channel=channel)


def ticked(incident: Incident, log: Log) -> str | None:
    line = next(each for each in checklist(incident, WITH, log.now) if each.key == "war-room")
    return None if line.seen is None else f"{line.seen.by}: {line.seen.evidence}"


@pytest.mark.req("IR-1")
def test_it_is_opened_with_the_bridge_and_ticked_only_when_the_summary_has_arrived() -> None:
    log = declared()
    found = queue(log)
    assert found.number == 1
    for part in (
        "Pin this.",
        "- Channel: #war-room",
        "- Bridge: https://meet.hospital.example/7",
        "- Incident Commander: ",
        "hmsdr plan corruption us-east-1",
    ):
        assert part in found.body
    assert ticked(log.incident(), log) is None
    arrive(log, found, "teams:Incident Response")
    told = "system: opened on teams:Incident Response, where its summary is kept up to date"
    assert ticked(log.incident(), log) == told
    assert due(declared().incident(), BOOK, log.now, None) is None, "a playbook without a room has none"


@pytest.mark.req("IR-1")
def test_a_quiet_incident_posts_nothing_and_a_change_posts_once_after_a_while() -> None:
    log = declared()
    first = queue(log)
    log.later(minutes=5).add("incident.noted", "INC-1", "Celia Marsh", field="cause", text="a disk")
    assert summary(log) is None, "the first one has not arrived: nothing piles up"
    arrive(log, first)
    second = queue(log)
    assert second.number == 2
    assert "Pin this instead of summary 1." in second.body
    assert "- Root cause: a disk" in second.body
    arrive(log, second)
    log.later(hours=1)
    assert summary(log) is None, "it has no clock in it"
    log.add("incident.noted", "INC-1", "Celia Marsh", field="eta", text="20 minutes")
    third = queue(log)
    arrive(log, third)
    log.later(seconds=59).add("incident.noted", "INC-1", "Celia Marsh", field="eta", text="now")
    assert summary(log) is None, "a minute has not passed"
    assert summary(log.later(seconds=1)) is not None


@pytest.mark.req("IR-1")
def test_who_meets_there_learns_that_it_is_over_and_a_new_round_opens_it_anew() -> None:
    log = declared()
    arrive(log, queue(log))
    log.later(hours=1).add("incident.status", "INC-1", "Ada Quill", status="resolved")
    last = queue(log)
    assert "- Status: Resolved" in last.body
    assert "SUGGESTED" not in last.body
    arrive(log, last)
    assert summary(log.later(hours=1)) is None
    log.add("incident.reopened", "INC-1", "Ada Quill", reason="it is back", roles={}, signals=[])
    assert ticked(log.incident(), log) is None
    again = queue(log)
    assert (again.round, again.number) == (2, 1)
    late = room_key("INC-1", 1, 2)
    log.add("incident.met", "INC-1", "keeper", key=late, channel="x")
    assert ticked(log.incident(), log) is None, "a message of the round before opens nothing"
    arrive(log, again)
    assert ticked(log.incident(), log) is not None


@pytest.mark.req("IR-1", "CM-4")
def test_nothing_of_a_patient_and_no_mention_gets_into_the_room() -> None:
    log = declared()
    log.add("incident.noted", "INC-1", "Celia Marsh", field="cause", text="MRN 1234567 cannot be read")
    log.add("incident.noted", "INC-1", "Celia Marsh", field="eta", text="ask @channel <!here>")
    found = queue(log)
    assert "1234567" not in found.body
    assert "withheld" in found.body
    assert "@channel" not in found.body
    assert "<!here" not in found.body


def test_an_incident_that_was_over_before_the_playbook_had_a_room_gets_none() -> None:
    log = declared()
    log.add("incident.status", "INC-1", "Ada Quill", status="resolved")
    assert summary(log.later(minutes=1)) is None


@pytest.mark.parametrize(("channel", "level"), [("sms:Ada Quill", "error"), ("slack:#war-room", "warning")])
def test_a_room_that_leads_nowhere_is_found_beforehand(channel: str, level: str) -> None:
    book = with_room(war_room=ROOM.model_copy(update={"channel": channel, "every": timedelta(minutes=1)}))
    found = [each for each in check(book) if each.keys == ("channels", "war_room", "channel")]
    assert [each.level for each in found] == [level]
