"""The clinics at work on a real hospital: through a crash of its database, a move of its name, and back to a ledger."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from region import EAST, WEST, Front, run
from servers import DATABASE_NAME, REDIS_NAME, Hospital, until

from hmsdr.lab.hms.clinics.workload import Workload
from hmsdr.lab.hms.ledger import (
    Entry,
    Ledger,
    acknowledged,
    dual_writers,
    lost_writes,
    outage,
    present_ids,
    tables,
)
from hmsdr.lab.layout import PUBLIC_NAME


class Players:
    """Clinics as a process, with their ledger."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.path = front.layout.directory / "ledger.jsonl"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        arguments = ("--ledger", str(self.path), "--rate", "40", "--seed", "7", *more)
        self.process = run("hmsdr.lab.hms.clinics", self.front.layout, *arguments)

    def entries(self) -> list[Entry]:
        return Ledger.read(self.path) if self.path.exists() else []

    async def done(self, what: str, count: int, **wanted: object) -> None:
        """Wait for `count` acknowledged writes with these values."""

        async def enough() -> bool:
            fitting = [
                each
                for each in acknowledged(self.entries())
                if all(getattr(each, name) == value for name, value in wanted.items())
            ]
            return len(fitting) >= count

        await until(what, enough, 20)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.fixture
def players(front: Front) -> Iterator[Players]:
    made = Players(front)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait(10)


@pytest.mark.req("TV-4", "DB-3", "SV-3")
async def test_a_region_dies_under_the_clinics_and_the_other_takes_over(
    hospital: Hospital, front: Front, players: Players
) -> None:
    east = await hospital.primary()
    west = hospital.database(1, "postgres-secondary-0@us-west-2")
    await hospital.redis()
    cache = hospital.cache(1)
    cache.start()
    hospital.names.point(PUBLIC_NAME, front.layout.regions[EAST].ingress_https.host, ttl=1)
    pods = await front.staff(EAST)
    ingress = await front.ingress(EAST)
    await front.healthy(EAST)
    players.start()
    await players.done("every service is written to", 60, region=EAST, epoch=1)

    # The east dies whole; what it had committed is carried over, as a standby would have it.
    ingress.kill()
    for pod in pods.values():
        assert pod.process is not None
        pod.process.kill()
    east.kill()
    east.data.rename(west.directory.parent / "carried")
    west.directory.mkdir(parents=True, exist_ok=True)
    (west.directory.parent / "carried").rename(west.data)
    (west.data / "postmaster.pid").unlink(missing_ok=True)
    (west.data / "standby.signal").touch()

    async def felt() -> bool:
        return any(not each.ok for each in players.entries())

    await until("users feel it", felt)
    west.start()
    await west.answers()
    await west.promote(2)
    hospital.names.point(DATABASE_NAME, west.host)
    hospital.names.point(REDIS_NAME, cache.host)
    await front.staff(WEST, 10)
    await front.ingress(WEST)
    await front.healthy(WEST)
    hospital.names.point(PUBLIC_NAME, front.layout.regions[WEST].ingress_https.host, ttl=1)
    await players.done("the west is written to", 60, region=WEST, epoch=2, instance=west.instance)
    assert players.stop() == 0

    entries = players.entries()
    assert len({each.n for each in entries}) == len(entries)
    found = outage(entries)
    assert found is not None
    assert found.seconds is not None
    assert found.failed > 0
    assert dual_writers(entries) == 0
    conninfo = f"host={west.host} dbname=hms user=hms_app"
    assert lost_writes(entries, await present_ids(conninfo, tables(entries), deadline=5)) == []
    failed = {each.id for each in entries if each.kind == "write" and not each.ok}
    assert failed & {each.id for each in acknowledged(entries)}, "failed writes come again with the same id"


async def test_clinics_that_were_killed_go_on_with_their_ledger(
    hospital: Hospital, front: Front, players: Players
) -> None:
    await hospital.primary()
    await hospital.redis()
    hospital.names.point(PUBLIC_NAME, front.layout.regions[EAST].ingress_https.host, ttl=1)
    await front.staff(EAST)
    await front.ingress(EAST)
    players.start()
    await players.done("the first clinics work", 10)
    assert players.stop(signal.SIGKILL) == -signal.SIGKILL
    before = len(players.entries())
    players.start()
    await players.done("they work again", before + 10)
    assert players.stop() == 0
    numbers = [each.n for each in players.entries()]
    assert len(set(numbers)) == len(numbers)


def test_without_a_lab_they_say_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hmsdr.lab.hms.clinics", "--lab", tmp_path, "--ledger", tmp_path / "l"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "hmsdr lab up" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_workload_refers_only_to_what_was_acknowledged_and_repeats_with_the_same_id() -> None:
    workload = Workload(seed=1)
    done: set[str] = set()
    tried: dict[str, int] = {}
    repeated = 0
    for number in range(3000):
        request = workload.next(now := number / 20)
        if request.kind == "read":
            assert request.id in done
        elif request.body is not None and "patient_id" in request.body:
            assert request.body["patient_id"] in done
        if request.tries:
            assert tried[request.id] == request.tries
            repeated += 1
        if number % 7 == 0 and request.kind == "write":
            tried[request.id] = request.tries + 1
            workload.failed(request, now, answered=False)
        else:
            done.add(request.id)
            workload.succeeded(request)
    assert repeated > 100


def test_what_the_hospital_has_not_got_is_never_asked_for_again() -> None:
    workload = Workload(seed=2)
    first = workload.next(0)
    workload.succeeded(first)
    workload.failed(first, 0, answered=True)
    for number in range(50):
        request = workload.next(number)
        assert request.kind == "write"
        assert request.service in ("patient", "auth")
