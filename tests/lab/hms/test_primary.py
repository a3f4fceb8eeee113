"""A service that knows both databases: it follows the primary, holds requests while there is none, and hangs on nobody."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections import Counter
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from servers import DATABASE_NAME, Database, Hospital, Pod, until

OTHER_NAME = "postgres-secondary.hms.system.svc.cluster.local"
BOTH = f"{DATABASE_NAME},{OTHER_NAME}"


def patient() -> dict[str, Any]:
    return {"id": str(uuid4()), "name": "Test Patient", "born": "1980-02-29", "clinic": "clinic-1"}


async def pair(hospital: Hospital) -> tuple[Database, Database]:
    """A primary under epoch 1 and a standby that streams from it, each with its name."""
    first = await hospital.primary()
    second = hospital.database(1, "postgres-secondary-0@us-west-2")
    second.start(follow=first)
    await second.answers()
    hospital.names.point(OTHER_NAME, second.host)

    async def streams() -> bool:
        return await first.ask("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 1

    await until("the standby streams", streams)
    return first, second


async def stop(database: Database) -> None:
    """As the agent stops it before a planned switchover."""
    assert database.process is not None
    await database.ask("CHECKPOINT")
    database.process.send_signal(signal.SIGINT)
    await asyncio.to_thread(database.process.wait, 20)


class Writers:
    """Each writes as soon as it was answered, and takes every answer down."""

    def __init__(self, hospital: Hospital, pods: list[Pod]) -> None:
        self.statuses: Counter[int] = Counter()
        self.acknowledged: list[tuple[str, str, int]] = []
        self.refused: list[dict[str, Any]] = []
        self.longest = 0.0
        self._hospital = hospital
        self._tasks = [asyncio.create_task(self._write(pod)) for pod in pods for _ in range(4)]

    async def _write(self, pod: Pod) -> None:
        while True:
            body, began = patient(), time.monotonic()
            status, answer = await self._hospital.post(f"{pod.url}/patients", body)
            self.longest = max(self.longest, time.monotonic() - began)
            self.statuses[status] += 1
            if status in (200, 201):
                self.acknowledged.append((body["id"], answer["instance"], answer["epoch"]))
            else:
                self.refused.append(answer)

    async def more(self, count: int) -> None:
        wanted = len(self.acknowledged) + count

        async def ask() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return len(self.acknowledged) >= wanted

        await until(f"{count} more writes", ask)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.mark.req("AP-3", "DB-2")
async def test_a_planned_switchover_there_and_back_is_a_wait_for_writers_and_no_error(
    hospital: Hospital,
) -> None:
    first, second = await pair(hospital)
    await hospital.redis()
    pods = [hospital.pod("patient", number, DATABASE_HOSTS=BOTH) for number in range(2)]
    for pod in pods:
        await hospital.ready(pod)
    writers = Writers(hospital, pods)
    try:
        for epoch, (old, new) in enumerate(((first, second), (second, first)), 2):
            await writers.more(100)
            await stop(old)
            await new.promote(epoch)
            await writers.more(100)
            if old is first:
                (first.data / "standby.signal").touch()
                first.start(follow=second)
                await first.answers()

                async def streams() -> bool:
                    found = await second.ask(
                        "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
                    )
                    return found == 1

                await until("the old side follows", streams)
    finally:
        await writers.stop()
    assert (set(writers.statuses), writers.refused) == ({201}, []), "201: none was there already, none twice"
    there = {str(row) for row in await rows(first, "SELECT id FROM patients")}
    assert {each for each, _, _ in writers.acknowledged} <= there
    # Nobody is acknowledged by the new primary under the old one's epoch.
    assert {(instance, epoch) for _, instance, epoch in writers.acknowledged} == {
        (first.instance, 1), (second.instance, 2), (first.instance, 3)
    }  # fmt: skip
    assert writers.longest < 1.5


async def rows(database: Database, query: str) -> list[object]:
    return list(str(await database.ask(f"SELECT string_agg(q::text, ' ') FROM ({query}) AS o (q)")).split())


@pytest.mark.req("AP-3")
async def test_sessions_that_an_operator_ends_are_made_again_unnoticed(hospital: Hospital) -> None:
    first, _ = await pair(hospital)
    await hospital.redis()
    pod = hospital.pod("patient", DATABASE_HOSTS=BOTH)
    await hospital.ready(pod)
    writers = Writers(hospital, [pod])
    try:
        for _ in range(5):
            await writers.more(20)
            ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'hms_app'"
            assert int(str(await first.ask(ended))) >= 2
        await writers.more(20)
    finally:
        await writers.stop()
    assert (set(writers.statuses), writers.refused) == ({201}, [])
    # None was done twice (that would be a 200), and none that was acknowledged is missing.
    assert {each for each, _, _ in writers.acknowledged} <= {*(await rows(first, "SELECT id FROM patients"))}


@pytest.mark.req("AP-3", "FA-2")
async def test_a_pod_begins_while_nothing_takes_writes_and_serves_as_soon_as_something_does(
    hospital: Hospital,
) -> None:
    standby = hospital.database(1, "postgres-secondary-0@us-west-2")
    standby.start()
    await standby.answers()
    hospital.names.point(OTHER_NAME, standby.host)
    hospital.names.point(DATABASE_NAME, f"{hospital.net}.99")  # nobody is there
    await hospital.redis()
    pod = hospital.pod("patient", DATABASE_HOSTS=BOTH)
    await hospital.ready(pod)
    status, answer = await hospital.get(f"{pod.url}/health")
    assert (status, answer["database"]["role"]) == (503, "standby")
    assert "in recovery" in answer["reason"]
    assert DATABASE_NAME in answer["reason"]
    began = time.monotonic()
    status, refused = await hospital.post(f"{pod.url}/patients", patient())
    assert (status, refused["kind"]) == (503, "no_primary")
    assert 1 < time.monotonic() - began < 2, "held for a while, and answered before users give up"
    held = [asyncio.create_task(hospital.post(f"{pod.url}/patients", patient())) for _ in range(6)]
    await asyncio.sleep(0.3)
    await standby.promote(2)
    answers = await asyncio.gather(*held)
    assert {(status, answer["instance"], answer["epoch"]) for status, answer in answers} == {
        (201, standby.instance, 2)
    }


@pytest.mark.req("AP-3")
async def test_a_candidate_that_swallows_everything_holds_nobody_up(hospital: Hospital) -> None:
    silent = socket.create_server((f"{hospital.net}.99", 5432), backlog=1)
    try:
        primary = hospital.database(1, "postgres-secondary-0@us-west-2")
        primary.start()
        await primary.answers()
        await primary.promote(2)
        hospital.names.point(OTHER_NAME, primary.host)
        hospital.names.point(DATABASE_NAME, f"{hospital.net}.99")
        await hospital.redis()
        pod = hospital.pod("patient", DATABASE_HOSTS=BOTH)
        await hospital.ready(pod)
        began = time.monotonic()
        for _ in range(20):
            assert (await hospital.post(f"{pod.url}/patients", patient()))[0] == 201
            assert (await hospital.get(f"{pod.url}/health"))[0] == 200
        assert time.monotonic() - began < 5, "40 answers, none of which waited for the silent one"
    finally:
        silent.close()


@pytest.mark.req("FA-4")
async def test_who_was_the_primary_once_is_not_written_to_again(hospital: Hospital) -> None:
    """The old primary comes back writable, as it must not; a pod that has seen the newer epoch does not believe it."""
    old = await hospital.primary()
    new = hospital.database(1, "postgres-secondary-0@us-west-2")
    new.start()
    await new.answers()
    await new.promote(2)
    hospital.names.point(OTHER_NAME, new.host)
    await hospital.redis()
    old_host = old.host
    hospital.names.point(DATABASE_NAME, f"{hospital.net}.99")
    pod = hospital.pod("patient", DATABASE_HOSTS=BOTH)
    await hospital.ready(pod)
    assert (await hospital.post(f"{pod.url}/patients", patient()))[1]["epoch"] == 2
    hospital.names.point(DATABASE_NAME, old_host)
    new.kill()

    async def seen() -> bool:
        status, answer = await hospital.post(f"{pod.url}/patients", patient())
        assert status == 503, answer
        return "was the primary once" in answer["error"]

    await until("the old one is known as that", seen)
    assert await old.ask("SELECT count(*) FROM patients") == 0


async def test_a_pod_that_is_told_to_end_serves_until_others_know(hospital: Hospital) -> None:
    await hospital.primary()
    await hospital.redis()
    pod = hospital.pod("patient")
    await hospital.ready(pod)
    assert pod.process is not None
    pod.process.terminate()

    async def leaving() -> bool:
        return (await hospital.get(f"http://{pod.host}:8080/ready"))[0] == 503

    await until("it is ready no more", leaving)
    async with hospital.session.post(f"{pod.url}/patients", json=patient()) as answer:
        assert (answer.status, answer.headers["Connection"]) == (201, "close")
    assert await asyncio.to_thread(pod.process.wait, 5) == 0
    with pytest.raises(aiohttp.ClientConnectorError):
        await hospital.get(f"http://{pod.host}:8080/ready")
