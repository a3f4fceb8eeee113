"""The ingress as a real process, before real pods, with a Kubernetes API that changes its mind and goes away."""

from __future__ import annotations

import ssl
from uuid import uuid4

import aiohttp
import pytest
from region import EAST, WEST, Front, run
from servers import DATABASE_NAME, Hospital, until

from hmsdr.lab.layout import PUBLIC_NAME, SERVICES


@pytest.mark.req("SV-1", "SV-2", "SV-3")
async def test_each_service_is_reached_by_its_path_over_http_and_https(
    hospital: Hospital, front: Front
) -> None:
    await hospital.primary()
    await hospital.redis()
    await front.staff(EAST)
    await front.ingress()
    health = await front.healthy()
    assert set(health["services"]) == set(SERVICES)
    assert health["services"]["auth"]["instance"] == "postgres-primary-0@us-east-1"
    body = {"id": str(uuid4()), "name": "Test", "born": "1980-02-29", "clinic": "clinic-1"}
    status, written = await hospital.post(f"{front.url(EAST)}/patient-service/patients", body)
    assert (status, written["epoch"]) == (201, 1)
    trust = ssl.create_default_context(cafile=front.layout.ca_file)
    secure = front.layout.regions[EAST].ingress_https
    url = f"https://{secure}/patient-service/patients/{body['id']}"
    async with hospital.session.get(url, ssl=trust, server_hostname=PUBLIC_NAME) as answer:
        assert answer.status == 200
        assert answer.headers["X-HMS-Region"] == EAST
        assert (await answer.json())["name"] == "Test"
    for path in ("/pharmacy-service/health", "/"):
        assert (await hospital.get(front.url(EAST) + path))[0] == 404
    async with hospital.session.get(f"{front.url(EAST)}/metrics") as page:
        text = await page.text()
    assert (
        'ingress_requests_total{kind="user",method="POST",service="patient-service",status="201"} 1.0' in text
    )


async def test_a_request_goes_to_the_next_pod_when_one_refuses_and_none_is_a_clear_503(
    hospital: Hospital, front: Front
) -> None:
    await hospital.primary()
    await hospital.redis()
    pods = [hospital.pod("patient", number) for number in (0, 1)]
    for pod in pods:
        await hospital.ready(pod)
    await front.ingress()
    root = f"{front.url(EAST)}/patient-service"

    async with hospital.session.get(f"{root}/health") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert "no pod is ready" in (await answer.json())["error"]
    front.apis[EAST].set("patient", [pod.host for pod in pods])

    async def seen() -> set[str]:
        # Until the ingress has learned of them, it answers 503 and no pod is named.
        return {(await hospital.get(f"{root}/ready"))[1].get("pod", "") for _ in range(4)} - {""}

    async def both() -> bool:
        return len(await seen()) == 2

    await until("both pods have a turn", both)
    assert pods[0].process is not None
    pods[0].process.kill()
    pods[0].process.wait(10)
    for _ in range(6):
        body = {"id": str(uuid4()), "name": "Test", "born": "1980-02-29", "clinic": "c"}
        assert (await hospital.post(f"{root}/patients", body))[0] == 201
    front.apis[EAST].set("patient", [pods[1].host], waiting=[pods[0].host])
    targets = await (await hospital.session.get(f"{front.url(EAST)}/__ingress/targets")).json()
    assert {each["labels"]["pod"] for each in targets} == {f"patient-service-{pod.host}" for pod in pods}
    assert pods[1].process is not None
    pods[1].process.kill()
    pods[1].process.wait(10)
    status, refused = await hospital.post(f"{root}/patients", {})
    assert (status, "does not answer" in refused["error"]) == (503, True)


async def test_what_was_learned_last_holds_while_the_api_is_away(hospital: Hospital, front: Front) -> None:
    await hospital.primary()
    await hospital.redis()
    pods = [hospital.pod("auth", number) for number in (0, 1)]
    for pod in pods:
        await hospital.ready(pod)
    api = front.apis[EAST]
    api.set("auth", [pods[0].host])
    await front.ingress()
    url = f"{front.url(EAST)}/auth-service/ready"

    async def served_by(number: int) -> bool:
        status, answer = await hospital.get(url)
        return status == 200 and answer["pod"] == pods[number].environment["POD_NAME"]

    await until("the first pod serves", lambda: served_by(0))
    lists = api.lists
    api.end_watches()

    async def listed() -> bool:
        return api.lists > lists

    await until("a watch that ended is followed by a list", listed)
    await api.stop()
    for _ in range(5):
        assert await served_by(0)
    api.set("auth", [pods[1].host])
    await api.start()
    await until("the API is heard again", lambda: served_by(1))


async def test_a_standby_database_is_a_503_of_the_whole_region(hospital: Hospital, front: Front) -> None:
    standby = hospital.database(0, "postgres-secondary-0@us-west-2")
    standby.start()
    await standby.answers()
    hospital.names.point(DATABASE_NAME, standby.host)
    await hospital.redis()
    await front.staff(WEST)
    await front.ingress(WEST)

    async def told() -> bool:
        status, answer = await hospital.get(f"{front.url(WEST)}/health")
        assert status == 503
        return all("in recovery" in str(each["reason"]) for each in answer["services"].values())

    await until("every service says why", told)
    await standby.promote(2)
    assert (await front.healthy(WEST))["services"]["patient"]["epoch"] == 2


async def test_wrong_arguments_missing_files_and_taken_ports_end_clearly(
    hospital: Hospital, front: Front
) -> None:
    log = front.layout.directory / "wrong.log"
    assert run("hmsdr.lab.hms.ingress", front.layout, "--region", "eu-1", log=log).wait(10) == 2
    assert "Known: us-east-1, us-west-2" in log.read_text()
    first = await front.ingress()
    assert run("hmsdr.lab.hms.ingress", front.layout, "--region", EAST, log=log).wait(10) == 1
    assert "Stop what listens there" in log.read_text()
    first.terminate()
    assert first.wait(5) == 0
    (front.layout.directory / "tls" / "ingress.pem").unlink()
    assert run("hmsdr.lab.hms.ingress", front.layout, "--region", EAST, log=log).wait(10) == 2
    assert "ingress.pem" in log.read_text()
    with pytest.raises(aiohttp.ClientConnectionError):
        await hospital.get(f"{front.url(EAST)}/__ingress/healthz")


@pytest.mark.req("SV-2")
async def test_the_ingress_object_says_where_a_path_goes(hospital: Hospital, front: Front) -> None:
    """It did not: paths were wired in, and a deleted ingress changed nothing for users."""
    await hospital.primary()
    await hospital.redis()
    await front.staff(EAST)
    await front.ingress()
    await front.healthy()
    api, root = front.apis[EAST], front.url(EAST)

    async def answers(path: str, status: int) -> None:
        async def does() -> bool:
            return (await hospital.get(f"{root}{path}"))[0] == status

        await until(f"{path} answers {status}", does)

    every = {f"/{service}-service": f"{service}-service" for service in SERVICES}
    api.route(
        {"/sick": "patient-service", **{path: name for path, name in every.items() if "patient" not in path}}
    )
    await answers("/patient-service/health", 404)
    assert (await hospital.get(f"{root}/auth-service/health"))[0] == 200
    status, health = await hospital.get(f"{root}/health")
    assert (status, health["services"]["patient"]["status"]) == (503, "failed")
    assert "no ingress routes it" in health["services"]["patient"]["reason"]
    api.route({}, "DELETED")
    await answers("/auth-service/health", 404)
    api.route(every, "ADDED")
    await answers("/patient-service/health", 200)
    await front.healthy()
    await api.stop()
    assert (await hospital.get(f"{root}/patient-service/health"))[0] == 200, "what is known stays in force"
