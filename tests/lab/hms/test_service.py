"""One service as a real process, with a real PostgreSQL and a real Redis that come, go and change their roles."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import pytest
from servers import DATABASE_NAME, REDIS_NAME, Hospital, Pod, until


def patient() -> dict[str, Any]:
    return {"id": str(uuid4()), "name": "Test Patient", "born": "1980-02-29", "clinic": "clinic-1"}


async def write(hospital: Hospital, pod: Pod, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return await hospital.post(f"{pod.url}/patients", body)


@pytest.mark.req("DB-3")
async def test_a_write_is_acknowledged_with_instance_and_epoch_and_repeating_it_changes_nothing(
    hospital: Hospital,
) -> None:
    database = await hospital.primary()
    await hospital.redis()
    pod = hospital.pod("patient")
    await hospital.ready(pod)
    body = patient()
    first, again = [await write(hospital, pod, body) for _ in range(2)]
    assert (first[0], again[0]) == (201, 200)
    assert (first[1]["existed"], again[1]["existed"]) == (False, True)
    assert first[1]["instance"] == database.instance
    assert first[1]["epoch"] == 1
    assert await database.ask("SELECT count(*) FROM patients") == 1
    status, read = await hospital.get(f"{pod.url}/patients/{body['id']}")
    assert (status, read["name"]) == (200, "Test Patient")
    status, listed = await hospital.get(f"{pod.url}/patients?limit=5")
    assert [row["id"] for row in listed["patients"]] == [body["id"]]
    assert pod.stop() == 0


async def test_bad_input_gets_a_clear_answer(hospital: Hospital) -> None:
    await hospital.primary()
    await hospital.redis()
    pod = hospital.pod("appointment")
    await hospital.ready(pod)
    root = f"{pod.url}/appointments"
    good = {
        "id": str(uuid4()),
        "patient_id": str(uuid4()),
        "starts_at": "2026-01-01T10:00:00+00:00",
        "reason": "x",
    }
    cases = [
        ([], "object"),
        ({**good, "id": "1"}, "id:"),
        ({**good, "starts_at": "noon"}, "starts_at"),
        ({**good, "extra": 1}, "extra"),
        ({**good, "reason": ""}, "reason"),
    ]
    for body, word in cases:
        status, answer = await hospital.post(root, body)
        assert (status, word in answer["error"]) == (400, True), answer
    status, answer = await hospital.post(root, good)
    assert (status, "patients" in answer["error"]) == (409, True), answer
    assert (await hospital.get(f"{root}/{uuid4()}"))[0] == 404
    assert (await hospital.get(f"{root}/7"))[0] == 400
    assert (await hospital.get(f"{root}?limit=0"))[0] == 400
    assert (await hospital.get(f"{pod.url}/nothing"))[0] == 404
    async with hospital.session.get(f"http://{pod.host}:8080/metrics") as metrics:
        text = await metrics.text()
    assert (
        'http_requests_total{method="POST",route="/appointment-service/appointments",status="400"} 5.0'
        in text
    )


@pytest.mark.req("DB-2", "FA-2")
async def test_a_standby_is_ready_but_not_healthy_and_healthy_within_milliseconds_of_its_promotion(
    hospital: Hospital,
) -> None:
    database = hospital.database(0, "postgres-secondary-0@us-west-2")
    database.start()
    await database.answers()
    hospital.names.point(DATABASE_NAME, database.host)
    await hospital.redis()
    pod = hospital.pod("clinical")
    await hospital.ready(pod)
    status, answer = await hospital.get(f"{pod.url}/health")
    assert (status, answer["status"], answer["database"]["role"]) == (503, "failed", "standby")
    assert "in recovery" in answer["reason"]
    status, refused = await hospital.post(
        f"{pod.url}/notes", {"id": str(uuid4()), "patient_id": str(uuid4()), "author": "a", "text": "t"}
    )
    assert (status, refused["kind"]) == (503, "read_only")

    async def ask() -> float | None:
        status, answer = await hospital.get(f"{pod.url}/health")
        return time.monotonic() if status == 200 and answer["epoch"] == 2 else None

    turning = asyncio.create_task(until("health turns good", ask))
    promoted = await database.promote(2)
    took = await turning - promoted
    assert took < 0.25, "polled every 10 ms on a busy machine; the health check itself takes a few"


@pytest.mark.req("DB-3")
async def test_a_dead_database_is_told_at_once_and_its_successor_found_by_name(hospital: Hospital) -> None:
    old = await hospital.primary()
    new = hospital.database(1, "postgres-secondary-0@us-west-2")
    new.start()
    await new.answers()
    await hospital.redis()
    pod = hospital.pod("patient")
    await hospital.ready(pod)
    assert (await write(hospital, pod, patient()))[0] == 201
    old.kill()
    began = time.monotonic()
    status, answer = await hospital.get(f"{pod.url}/health")
    assert status == 503
    assert answer["database"]["found"]
    assert time.monotonic() - began < 1
    status, refused = await write(hospital, pod, patient())
    assert (status, refused["kind"]) == (503, "connect")
    await new.promote(2)
    hospital.names.point(DATABASE_NAME, new.host)
    status, written = await write(hospital, pod, patient())
    assert (status, written["instance"], written["epoch"]) == (201, new.instance, 2)


async def test_a_silent_database_costs_no_more_than_the_deadline(hospital: Hospital) -> None:
    database = await hospital.primary()
    await hospital.redis()
    pod = hospital.pod("patient")
    await hospital.ready(pod)
    assert (await write(hospital, pod, patient()))[0] == 201
    await database.ask("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await database.ask("SELECT pg_reload_conf()")

    async def hangs() -> bool:
        status, answer = await write(hospital, pod, patient())
        return status == 503 and answer["kind"] in ("timeout", "lost")

    began = time.monotonic()
    await until("a commit that waits for a standby is told", hangs)
    status, _ = await hospital.get(f"{pod.url}/health")
    assert status == 503
    assert time.monotonic() - began < 6
    await database.ask("ALTER SYSTEM RESET synchronous_standby_names")
    await database.ask("SELECT pg_reload_conf()")

    async def well() -> bool:
        return (await hospital.get(f"{pod.url}/health"))[0] == 200

    await until("it is well again", well)


@pytest.mark.req("RD-2")
async def test_redis_may_go_and_come_back_read_only_and_the_service_serves_on(hospital: Hospital) -> None:
    await hospital.primary()
    cache = await hospital.redis()
    pod = hospital.pod("auth")
    await hospital.ready(pod)

    async def redis_is(status: str) -> bool:
        code, answer = await hospital.get(f"{pod.url}/health")
        assert code == 200, answer
        assert answer["status"] == status
        return bool(answer["redis"]["status"] == status)

    async def works() -> None:
        user = {"id": str(uuid4()), "login": str(uuid4()), "role": "clinic"}
        assert (await hospital.post(f"{pod.url}/users", user))[0] == 201
        for _ in range(2):
            assert (await hospital.get(f"{pod.url}/users/{user['id']}"))[1]["login"] == user["login"]

    assert await redis_is("ok")
    await works()
    assert int(cache.tell("GET", "hms:writes:auth")) == 1
    cache.tell("FLUSHALL")
    await works()
    cache.kill()
    assert await redis_is("degraded")
    await works()
    replica = hospital.cache(1)
    replica.start("--replicaof", cache.host, "6379")
    hospital.names.point(REDIS_NAME, replica.host)

    async def read_only() -> bool:
        _, answer = await hospital.get(f"{pod.url}/health")
        return bool(answer["redis"]["role"] == "slave")

    await until("the service finds the replica", read_only)
    assert await redis_is("degraded")
    await works()
    replica.tell("REPLICAOF", "NO", "ONE")
    assert await redis_is("ok")


async def test_a_pod_starts_without_a_database_and_without_names(hospital: Hospital) -> None:
    pod = hospital.pod("billing")
    await hospital.ready(pod)
    status, answer = await hospital.get(f"{pod.url}/health")
    assert status == 503
    assert DATABASE_NAME in answer["reason"]
    assert answer["redis"]["status"] == "degraded"


async def test_wrong_settings_and_a_taken_address_end_with_a_clear_word(hospital: Hospital) -> None:
    wrong = hospital.pod("patient", HMS_SERVICE="pharmacy")
    assert wrong.process is not None
    assert wrong.process.wait(10) == 2
    assert "there is no service 'pharmacy'" in wrong.log
    first = hospital.pod("patient", 1)
    await hospital.ready(first)
    second = hospital.pod("billing", 1)
    assert second.process is not None
    assert second.process.wait(10) == 1
    assert "listening on" in second.log
    began = time.monotonic()
    assert first.stop() == 0
    assert time.monotonic() - began < 2
