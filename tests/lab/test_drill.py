"""The drill as a person runs it: a region dies under traffic, and the report tells the truth about it."""

from __future__ import annotations

import json
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from commands import begin, hmsdr
from hmsdr.lab.client import lab_id
from hmsdr.lab.hms.ledger import HOSPITAL_ANSWERED, Entry, Ledger, acknowledged
from hmsdr.lab.processes import lab_processes

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
STAGES = [
    "detection",
    "verification",
    "scaling-up",
    "fencing",
    "promotion",
    "dns-update",
    "validation",
    "notification",
]


def nothing_left(directory: Path) -> bool:
    return not lab_processes(lab_id(directory), directory) and not directory.exists()


def went_home(report: dict[str, Any], entries: list[Entry]) -> None:
    """Data equal, users home share by share, nobody refused on the way, and all as it was before the fault."""
    compared = report["data_equal"]
    assert (compared["equal"], len(compared["lsns"])) == (True, 1)
    rows = {each["table"]: each["rows"] for each in compared["tables"]}
    (phase,) = [each for each in report["phases"] if each["name"] == "data-equal"]
    began = datetime.fromisoformat(phase["started_at"]).timestamp()
    before = {each.id for each in acknowledged(entries) if each.ended_at < began}
    assert sum(rows.values()) >= len(before - set(report["lost_writes"])) > 30
    assert [step["asked"] for step in report["traffic_steps"]] == [20, 40, 60, 80, 100]
    for step in report["traffic_steps"]:
        assert (step["verdict"], abs(step["arrived"] - step["asked"]) <= 30) == ("good", True)
        assert step["held"] >= 4
        assert step["home"]["requests"] >= 10
    (ends,) = [each for each in report["watched"] if each["what"] == "it ends where it began"]
    assert ends["well"], ends
    # Going home is no outage: nobody was refused once the region was back.
    recovered = datetime.fromisoformat(report["phases"][-1]["started_at"]).timestamp()
    assert [
        each
        for each in entries
        if each.sent_at > recovered and not each.ok and each.error not in HOSPITAL_ANSWERED
    ] == []


@pytest.mark.req(
    "TV-4",
    "FA-2",
    "FA-4",
    "AP-1",
    "FM-3",
    "FM-4",
    "SV-1",
    "SV-2",
    "SV-3",
    "RC-1",
    "RC-2",
    "RC-3",
    "RC-4",
    "SW-1",
    "SW-2",
    "SW-3",
    "SW-4",
)
def test_a_region_dies_under_traffic_and_the_report_says_what_users_went_through(tmp_path: Path) -> None:
    out, place = tmp_path / "report", tmp_path / "lab"
    done = hmsdr("drill", "run", "regional-outage", "--out", out, "--dir", place, seconds=240)
    assert done.status == 0, done
    assert "PASSED" in done.out
    assert nothing_left(place)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    assert (report["scenario"], report["outcome"], report["failures"]) == ("regional-outage", "passed", [])
    assert report["overlay"] == "lab"
    assert report["thresholds"]["region unreachable for"] == "5s"
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert set(STAGES) <= stages.keys()
    assert all(stage["seconds"] >= 0 and stage["outcome"] == "succeeded" for stage in stages.values())
    ends = {name: stage["started_at"] for name, stage in stages.items()}
    assert ends["detection"] < ends["fencing"] < ends["promotion"] < ends["dns-update"] < ends["validation"]
    # The lease of 4 s had to run out: nobody of the dead region could sign a receipt.
    assert stages["fencing"]["seconds"] > 4
    assert 5 < report["rto_seconds"] < report["rto_target_seconds"]
    assert 0 < report["execution_seconds"] < report["rto_seconds"]
    assert report["rpo_seconds"] <= report["rpo_target_seconds"]
    assert report["dual_writers"] == 0
    entries = Ledger.read(out / "ledger.jsonl")
    assert report["acknowledged_writes"] == len(acknowledged(entries)) > 30
    assert set(report["lost_writes"]) <= {entry.id for entry in acknowledged(entries)}
    assert {entry.region for entry in entries if entry.ok} == {"us-east-1", "us-west-2"}
    items = [item for each in report["checklists"].values() for item in each]
    assert len(items) == 13
    assert all(item["evidence"] for item in items)
    (open_item,) = [item for item in items if not item["done"]]
    # Honest: there is nobody to replicate to before the lost region is back.
    assert (open_item["item"], open_item["state"]) == ("Database replication working", "not possible yet")
    assert [phase["name"] for phase in report["phases"]] == [
        "failover", "machines-back", "recovery", "data-equal", "switchback",
    ]  # fmt: skip
    assert all(phase["outcome"] == "succeeded" and phase["seconds"] > 0 for phase in report["phases"])
    assert 0 <= report["realised_rpo"] <= report["rpo_target_seconds"]
    assert report["reconciled"]["complete"]
    assert {step["state"] for step in report["recovery_steps"]} == {"succeeded"}
    went_home(report, entries)
    assert report["phases"][-1]["run"] in (out / "report.html").read_text()
    page = (out / "report.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    again = hmsdr("drill", "run", "regional-outage", "--out", out, "--dir", place)
    assert (again.status, "a report is there already" in again.err) == (2, True), again


@pytest.mark.req("TV-5", "AP-3", "DB-1", "DB-2", "DB-3", "DB-4", "RC-2", "RC-3")
def test_a_database_dies_while_its_region_lives_and_comes_home_unnoticed(tmp_path: Path) -> None:
    out, place = tmp_path / "report", tmp_path / "lab"
    done = hmsdr("drill", "run", "database-failure", "--out", out, "--dir", place, seconds=240)
    assert (done.status, nothing_left(place)) == (0, True), done
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    assert (report["scenario"], report["outcome"], report["failures"]) == ("database-failure", "passed", [])
    assert (report["trigger"]["kind"], report["trigger"]["hold_down_seconds"]) == ("database-failed", None)
    # Whoever is on call was patient for 3 s first: an agent starts a database that only crashed.
    assert 3 < report["rto_seconds"] < report["rto_target_seconds"]
    assert report["rpo_seconds"] <= report["rpo_target_seconds"]
    assert 0 <= report["realised_rpo"] <= report["rpo_target_seconds"]
    assert (report["reconciled"]["complete"], report["dual_writers"]) == (True, 0)
    assert [(phase["name"], phase["outcome"]) for phase in report["phases"]] == [
        (name, "succeeded") for name in ("failover", "machines-back", "recovery", "data-equal", "switchback")
    ]
    assert (report["data_equal"]["equal"], report["data_equal"]["primary"]) == (True, "us-west-2")
    assert report["traffic_steps"] == []
    assert [(each["what"], each["well"]) for each in report["watched"]] == [
        ("users stay where they are and work with the other database", True),
        ("it ends where it began", True),
        ("users did not notice the way home", True),
    ]
    entries = Ledger.read(out / "ledger.jsonl")
    # Users never left; their writes went to three epochs in turn: home, the other side, home again.
    assert {entry.region for entry in entries if entry.ok} == {"us-east-1"}
    epochs = [entry.epoch for entry in entries if entry.ok and entry.kind == "write" and entry.epoch]
    assert sorted(set(epochs)) == list(range(epochs[0], epochs[0] + 3))
    # What is lost is of the last moment before the fault, never of the way home.
    lost = [entry for entry in acknowledged(entries) if entry.id in set(report["lost_writes"])]
    assert {entry.epoch for entry in lost} <= {epochs[0]}
    page = (out / "report.html").read_text()
    assert "the database of us-east-1 unreachable since" in page
    assert report["phases"][-1]["run"] in page


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_it_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    place = tmp_path / "lab"
    process = begin(
        "drill", "run", "regional-outage", "--out", str(tmp_path / "o"), "--dir", str(place), lab=None
    )
    ends = time.monotonic() + 60
    while not (tmp_path / "o" / "ledger.jsonl").exists():
        assert time.monotonic() < ends
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(30) == (-9 if number is signal.SIGKILL else 1)
    ends = time.monotonic() + (20 if number is signal.SIGKILL else 0)
    while not nothing_left(place):
        assert time.monotonic() < ends, "the lab goes on"
        time.sleep(0.1)


def test_what_cannot_be_practised_is_refused(tmp_path: Path) -> None:
    unknown = hmsdr("drill", "run", "regional-outge")
    assert (unknown.status, "Did you mean 'regional-outage'" in unknown.err) == (2, True), unknown
    (tmp_path / "file").touch()
    nowhere = hmsdr(
        "drill", "run", "regional-outage", "--out", tmp_path / "file" / "below", "--dir", tmp_path / "l"
    )
    assert (nowhere.status, "Name another directory with --out" in nowhere.err) == (2, True), nowhere
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    taken = hmsdr("drill", "run", "regional-outage", "--out", tmp_path / "o", "--dir", tmp_path / "full")
    assert (taken.status, "no lab's" in taken.err) == (2, True), taken
    assert (tmp_path / "full" / "mine").exists()
