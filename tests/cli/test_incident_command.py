"""`hmsdr incident` as people run it, on a store of its own: what is declared, answered, moved on, refused."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import click
import pytest

from commands import COMMAND, Done, hmsdr
from hmsdr.cli.main import cli
from hmsdr.errors import RefusedError
from hmsdr.log.events import NewEvent
from hmsdr.log.sqlite import SqliteStore

BY = ("--by", "Ada Quill")
SECRETS = {
    "HMSDR_POSTGRES_PASSWORD": "x",
    "HMSDR_AGENT_KEY_US_EAST_1": "x",
    "HMSDR_AGENT_KEY_US_WEST_2": "x",
}


class Place:
    """A hospital with a playbook and a log, and nothing else."""

    def __init__(self, directory: Path) -> None:
        self.playbook = directory / "playbook.yaml"
        self.store = directory / "log.db"
        self.playbook.write_text(f"extends: hms\nstore: {{path: {self.store}}}\n")

    def run(self, *words: str) -> Done:
        return hmsdr(*words, "--playbook", self.playbook, **SECRETS)

    def incident(self, *words: str) -> Any:
        done = self.run("incident", *words, "--json")
        assert done.status == 0, done
        return done.json()

    def refused(self, *words: str) -> str:
        """What is said when the command refuses; in this process: its exit status is tested once."""
        before = dict(os.environ)
        os.environ.update(SECRETS)
        try:
            with pytest.raises((RefusedError, click.ClickException)) as caught:
                cli.main(["incident", *words, "--playbook", str(self.playbook)], standalone_mode=False)
        finally:
            os.environ.clear()
            os.environ.update(before)
        if isinstance(caught.value, click.ClickException):
            assert caught.value.exit_code == 2
            return caught.value.format_message()
        return str(caught.value)

    async def alert(self, key: str) -> None:
        """A controller's alert in the log."""
        store = await SqliteStore.open(self.store)
        began = NewEvent("alert.began", key, "controller", {"text": "It shows damage", "remedy": "look"})
        await store.append([began], expected=await store.head())
        await store.close()

    def events(self) -> list[tuple[str, str]]:
        with sqlite3.connect(self.store) as connection:
            rows = connection.execute("SELECT kind, actor FROM event ORDER BY seq").fetchall()
        connection.close()
        return rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("incidents"))
    assert made.run("store", "init").status == 0
    return made


@pytest.mark.req("CL-1", "CL-3", "IR-4")
def test_an_incident_from_its_declaration_to_its_review(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run("store", "init")
    found = place.incident("declare", "The wards cannot log in", "--down", "auth", "--down", "patient", *BY)
    assert (found["incident"], found["new"], found["severity"], found["status"]) == (
        "INC-1",
        True,
        "SEV-1",
        "declared",
    )
    assert found["reasons"] == ["2 services are down: auth, patient"]
    again = place.incident("declare", "Nobody can log in", "--severity", "SEV-0", "--by", "Celia Marsh")
    assert (again["incident"], again["new"], again["severity"], again["proposed"]) == (
        "INC-1",
        False,
        "SEV-0",
        "SEV-1",
    )
    assert place.incident("acknowledge", "INC-1", *BY)["acknowledged_by"] == "Ada Quill"
    place.incident("severity", "INC-1", "SEV-2", "--reason", "only one ward", *BY)
    place.incident("assign", "INC-1", "security-lead", "Celia Marsh", *BY)
    place.incident("note", "INC-1", "40 wards on paper", "--field", "impact", *BY)
    place.incident("tick", "INC-1", "root-cause", "--evidence", "ticket 7", *BY)
    place.incident("status", "INC-1", "mitigating", "moving to the west", *BY)
    found = place.incident("resolve", "INC-1", "moved to the west", *BY)
    assert found["facts"]["resolution"]["text"] == "moved to the west"
    assert (found["severity"], found["roles"]["security-lead"][0]) == ("SEV-2", "Celia Marsh")
    done = {line["item"]: line["evidence"] for line in found["checklist"] if line["done"]}
    assert done["root-cause"] == "ticket 7"
    assert done["assess-impact"] == "40 wards on paper"
    place.incident("reopen", "INC-1", "--reason", "it is back", *BY)
    place.incident("status", "INC-1", "resolved", *BY)
    place.incident("status", "INC-1", "reviewed", *BY)
    assert place.incident("list")["incidents"] == []
    assert [each["incident"] for each in place.incident("list", "--all")["incidents"]] == ["INC-1"]
    told = place.incident("show", "INC-1", "--timeline")
    assert [each["kind"] for each in told["timeline"]] == [kind for kind, _ in place.events()]
    assert len(told["rounds"]) == 2
    people = place.run("incident", "show", "INC-1", "--timeline")
    for words in (
        "INC-1  SEV-2",
        "only one ward",
        "moved to the west",
        "✓ declare",
        "· root-cause",
        "incident.reopened",
    ):
        assert words in people.out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("acknowledge", "INC-9", *BY), "no such incident"),
        (("declare", "", *BY), "title is empty"),
        (("declare", "x" * 161, *BY), "161 characters"),
        (("declare", "x\x1b[2J", *BY), "control characters"),
        (("declare", "one\ntwo", *BY), "control characters"),
        (("declare", "x", "--by", " "), "name is empty"),
        (("declare", "x", "--lost", "us-east-9", *BY), "no region 'us-east-9'"),
        (("declare", "x", "--down", "pateint", *BY), "Did you mean"),
        (("declare", "x", "--severity", "SEV-7", *BY), "SEV-7"),
        (("declare", "x", "--reached", "101", *BY), "101"),
        (("declare", "x"), "--by"),
        (("keep", "--listen", "nowhere"), "no HOST:PORT"),
        (("keep", "--listen", "127.0.0.1:18999"), "no prometheus.alerts_key"),
        (("on-call", "--at", "yesterday"), "no date and time"),
        (("on-call", "--at", "2026-01-01T00:00"), "no offset"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(place: Place, words: tuple[str, ...], found: str) -> None:
    before = place.events()
    assert found in place.refused(*words)
    assert place.events() == before


def test_a_refusal_ends_the_command_with_status_2(place: Place) -> None:
    done = place.run("incident", "acknowledge", "INC-9", *BY)
    assert (done.status, "no such incident" in done.err) == (2, True), done


def test_what_is_wrong_with_one_that_exists_is_refused_too(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run("store", "init")
    place.incident("declare", "x", *BY)
    for words, found in (
        (("severity", "INC-1", "SEV-5", "--reason", "x"), "no 'SEV-5'"),
        (("severity", "INC-1", "SEV-1", "--reason", " "), "reason is empty"),
        (("assign", "INC-1", "cook", "Ada Quill"), "no role 'cook'"),
        (("assign", "INC-1", "security-lead", "Ada Quil"), "Did you mean"),
        (("note", "INC-1", "x", "--field", "impct"), "no field 'impct'"),
        (("tick", "INC-1", "root-case"), "no item 'root-case'"),
        (("status", "INC-1", "done"), "no 'done' to set"),
        (("status", "INC-1", "reviewed"), "it is declared"),
        (("reopen", "INC-1", "--reason", "x"), "nothing is to be reopened"),
    ):
        assert found in place.refused(*words, *BY)
    place.incident("resolve", "INC-1", *BY)
    for late in (("acknowledge", "INC-1"), ("severity", "INC-1", "SEV-0", "--reason", "x")):
        assert "reopen" in place.refused(*late, *BY)


@pytest.mark.req("CM-3", "CM-4")
def test_the_messages_are_shown_before_anybody_sends_them(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run("store", "init")
    place.incident("declare", "The wards cannot log in", "--down", "auth", *BY)
    place.incident("note", "INC-1", "MRN 1234567 is locked", "--field", "impact", *BY)
    found = {
        (each["audience"], each["language"]): each for each in place.incident("preview", "INC-1", "first")
    }
    assert {audience for audience, _ in found} >= {"response-team", "clinical-staff", "patients", "partners"}
    assert ("patients", "es") in found
    assert found["management", "en"]["withheld"] == [{"where": "impact", "looks_like": "a record number"}]
    assert "mitigation" in found["management", "en"]["missing"]
    done = place.run("incident", "preview", "INC-1", "update", "--audience", "clinical-staff")
    assert "SUBJECT: [SEV-2] HMS System Incident - Status Update" in done.out
    assert "AT THE BEDSIDE:" in done.out
    assert "- Services Impacted: Authentication service" in done.out
    assert "- Authentication service: DT-5" in done.out
    assert "1234567" not in done.out + done.err
    assert "no audience" in place.refused("preview", "INC-1", "first", "--audience", "patient")


@pytest.mark.req("CM-1")
def test_a_message_that_no_channel_takes_says_whom_to_call_and_stays_queued(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run("store", "init")
    place.incident("declare", "x", *BY)
    done = place.run("incident", "send", "INC-1", "first", "--seconds", "1", *BY)
    assert done.status == 1, done
    assert "no endpoint for" in done.err
    assert re.search(r"Call: (Ada Quill|Edda Thorne) \+1202555010\d", done.err)
    kinds = [kind for kind, _ in place.events()]
    assert kinds.count("message.queued") == 1
    assert "message.sent" not in kinds
    assert "tell them" in place.refused("send", "INC-1", "first", "--audience", "patients", *BY)
    told = place.incident("send", "INC-1", "first", "--audience", "patients", "--by-hand", "loudspeaker", *BY)
    assert [each["channel"] for each in told] == ["by hand: loudspeaker"]
    shown = place.incident("show", "INC-1")
    assert {each["name"]: each["met"] for each in shown["targets"]}["first word"] is True


@pytest.mark.req("IR-1", "IR-4")
def test_the_keeper_gives_an_alert_its_incident_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run("store", "init")
    asyncio.run(place.alert("damage/us-east-1"))
    words = ("incident", "keep", "--interval", "0.1", "--playbook", str(place.playbook))
    process = subprocess.Popen([*COMMAND, *words], env={**os.environ, **SECRETS})
    try:
        until = time.monotonic() + 60
        while ("message.queued", "keeper") not in place.events():
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(10)
    shown = place.incident("show", "INC-1")
    assert (shown["status"], shown["declared_by"], shown["due"]) == ("declared", "keeper", [])
    assert [line["done"] for line in shown["checklist"] if line["item"] == "activate-team"] == [True]


@pytest.mark.req("CO-1", "CO-3")
def test_who_is_on_call_is_told_with_numbers(place: Place) -> None:
    done = place.run("incident", "on-call", "--at", "2026-01-13T00:00+00:00")
    assert "Incident Commander   Edda Thorne +12025550105, then Ada Quill +12025550101" in done.out
    found = json.loads(place.run("incident", "on-call", "--at", "2026-01-12T12:59+00:00", "--json").out)
    assert found["roles"]["incident-commander"] == ["Ada Quill", "Edda Thorne"]


def test_an_empty_list_says_how_to_begin(place: Place) -> None:
    assert "hmsdr incident declare" in place.run("incident", "list").out


@pytest.mark.req("IR-2", "FM-1")
def test_a_way_out_is_suggested_with_its_gates_judged_and_nothing_is_begun(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert place.run("store", "init").status == 0
    place.incident("declare", "East is gone", "--lost", "us-east-1", *BY)
    before = place.events()
    (way,) = place.incident("suggest", "INC-1")
    assert way["command"] == "hmsdr failover us-east-1 us-west-2"
    assert way["allowed"] is False, "nothing of this hospital answers: silence is not health"
    assert {gate["state"] for gate in way["gates"]} <= {"failed", "unknown", "passed"}
    assert len(way["gates"]) == 4
    shown = place.run("incident", "suggest", "INC-1")
    assert shown.status == 0
    assert "would be refused" in shown.out
    assert place.events() == before
    assert "no such incident" in place.refused("suggest", "INC-9")


@pytest.mark.req("CM-1", "CM-2")
def test_what_became_of_each_message_is_listed_and_what_nobody_has_stands_out(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert place.run("store", "init").status == 0
    place.incident("declare", "The wards are on paper", *BY)
    assert "No message yet" in place.run("incident", "messages", "INC-1").out
    # This hospital's channels have no endpoint: the message stays queued, and is said to.
    assert place.run("incident", "send", "INC-1", "first", "--seconds", "1", *BY).status == 1
    place.incident("send", "INC-1", "first", "--by-hand", "by telephone", *BY)
    (letter,) = place.incident("messages", "INC-1", "--open")
    assert (letter["word"], letter["audience"], letter["state"]) == ("first", "response-team", "waiting")
    assert letter["tried"] >= 2
    assert "no endpoint" in letter["found"]
    shown = place.run("incident", "messages", "INC-1").out
    assert shown.startswith("1 waiting")
    assert "! " in shown
    assert "no such incident" in place.refused("messages", "INC-9")
