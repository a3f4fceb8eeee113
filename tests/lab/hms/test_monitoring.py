"""The lab's Prometheus with its real configuration, scraping a real ingress and real pods."""

from __future__ import annotations

import pytest
from region import EAST, WEST, Front, spawn
from servers import Hospital, until

from hmsdr.drivers.errors import TemporaryError
from hmsdr.drivers.prometheus import Prometheus, Sample
from hmsdr.lab.hms import monitoring


@pytest.mark.req("SW-3", "PR-6")
async def test_both_regions_and_their_pods_are_scraped(hospital: Hospital, front: Front) -> None:
    await hospital.primary()
    await hospital.redis()
    await front.staff(EAST)
    await front.staff(WEST, 10)
    for region in (EAST, WEST):
        await front.ingress(region)
        await front.healthy(region)
    monitoring.write_config(front.layout)
    process = spawn(monitoring.command(front.layout), front.layout.directory)
    prometheus = Prometheus(f"https://{front.layout.prometheus}", front.layout.ca_file)

    async def samples(expression: str, count: int) -> tuple[Sample, ...]:
        async def ask() -> tuple[Sample, ...] | None:
            await hospital.get(f"{front.url(WEST)}/patient-service/health")  # something to count
            try:
                found = await prometheus.query(expression, 2)
            except TemporaryError:
                return None
            return found if len(found) == count else None

        return await until(f"{count} of {expression}", ask, 30)

    try:
        ingresses = await samples('up{job="ingress"} == 1', 2)
        assert {each.labels["region"] for each in ingresses} == {EAST, WEST}
        pods = await samples('up{job="services"} == 1', 10)
        assert {each.labels["service"] for each in pods} == {
            "patient",
            "appointment",
            "clinical",
            "billing",
            "auth",
        }
        await samples("sum by (region) (rate(http_requests_total[5m]))", 2)
        await samples(
            "histogram_quantile(0.95, sum by (le) (rate(ingress_request_duration_seconds_bucket[5m])))", 1
        )
        await samples("hms_can_write == 1", 10)
        front.processes[0].kill()
        (gone,) = await samples('up{job="ingress"} == 0', 1)
        assert gone.labels["region"] == EAST
    finally:
        await prometheus.close()
        process.kill()
        process.wait(10)
