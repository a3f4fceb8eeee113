"""The Prometheus driver against a real Prometheus that scrapes itself."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from hmsdr.drivers.errors import PermanentError, TemporaryError
from hmsdr.drivers.prometheus import Prometheus
from hmsdr.lab.binaries import find

CONFIG = """
global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}
scrape_configs: [{{job_name: itself, static_configs: [{{targets: ["{address}"], labels: {{region: us-east-1}}}}]}}]
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("prometheus")
    address = f"127.{random.randrange(200, 240)}.{random.randrange(1, 255)}.90:9090"
    (place / "prometheus.yml").write_text(CONFIG.format(address=address))
    command = [
        find("prometheus"), f"--config.file={place / 'prometheus.yml'}", f"--web.listen-address={address}",
        f"--storage.tsdb.path={place / 'data'}", "--log.level=error",
    ]  # fmt: skip
    process = subprocess.Popen(command)
    yield f"http://{address}"
    process.kill()
    process.wait(10)


async def answer(prometheus: Prometheus, expression: str) -> float:
    """The first value of `expression`, waiting for the server and its first scrape."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        try:
            if found := await prometheus.query(expression, 2):
                return found[0].value
        except TemporaryError:
            continue
    raise AssertionError(f"no answer to {expression}")


@pytest.mark.req("SW-3")
async def test_vectors_and_scalars_are_typed_and_an_empty_answer_is_no_error(url: str) -> None:
    prometheus = Prometheus(url)
    assert await answer(prometheus, 'up{job="itself"}') == 1
    (sample,) = await prometheus.query('up{job="itself"}', deadline=2)
    assert sample.labels["region"] == "us-east-1"
    assert abs(sample.at - time.time()) < 5
    for deadline in (2, 2.99992, 12.5, 1e3):
        assert (await prometheus.query("1 + 1", deadline))[0].value == 2
    assert await prometheus.query("nothing_like_this", 2) == ()
    (infinite,) = await prometheus.query("1 / vector(0)", 2)
    assert infinite.value == float("inf")
    await prometheus.close()


async def test_errors_are_told_apart(url: str, tmp_path: Path) -> None:
    prometheus = Prometheus(url)
    await answer(prometheus, "vector(1)")
    with pytest.raises(PermanentError, match="parse error"):
        await prometheus.query("rate(", 2)
    with pytest.raises(PermanentError, match="matrix"):
        await prometheus.query("up[1m]", 2)
    with pytest.raises(PermanentError, match="HTTP 404"):
        await Prometheus(f"{url}/nowhere").query("up", 2)
    with pytest.raises(PermanentError, match=r"missing\.pem"):
        await Prometheus(url, tmp_path / "missing.pem").query("up", 2)
    with pytest.raises(TemporaryError):
        await Prometheus("http://127.0.0.1:1").query("up", 2)
    await prometheus.close()


async def test_one_that_is_silent_or_answers_nonsense_is_temporary() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>", status=502 if "bad" in request.path else 200)

    runner = web.AppRunner(app := web.Application())
    app.router.add_post("/{path:.*}", page)
    await runner.setup()
    host = f"127.{random.randrange(200, 240)}.{random.randrange(1, 255)}.91"
    await web.TCPSite(runner, host, 18090).start()
    for path in ("", "/bad"):
        prometheus = Prometheus(f"http://{host}:18090{path}")
        with pytest.raises(TemporaryError, match="no answer of its API"):
            await prometheus.query("up", 2)
        await prometheus.close()
    await runner.cleanup()
    with pytest.raises(TemporaryError):
        await Prometheus(f"http://{host}:18090").query("up", 0.5)


async def test_rules_of_something_else_are_an_error_not_an_empty_list(url: str) -> None:
    prometheus = Prometheus(url)
    await answer(prometheus, "vector(1)")
    assert await prometheus.alert_rules(2) == ()
    with pytest.raises(PermanentError, match="HTTP 404"):
        await Prometheus(f"{url}/nowhere").alert_rules(2)
    await prometheus.close()

    bodies = [
        '{"status": "success", "data": null}',
        '{"status": "success", "data": {"groups": [{"rules": [1]}]}}',
        "[]",
    ]

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=bodies[int(request.match_info["number"])])

    runner = web.AppRunner(app := web.Application())
    app.router.add_get("/{number}/{path:.*}", page)
    await runner.setup()
    host = f"127.{random.randrange(200, 240)}.{random.randrange(1, 255)}.91"
    await web.TCPSite(runner, host, 18090).start()
    for number in range(len(bodies)):
        strange = Prometheus(f"http://{host}:18090/{number}")
        with pytest.raises(TemporaryError, match=r"no answer of its API|cannot be read"):
            await strange.alert_rules(2)
        await strange.close()
    await runner.cleanup()
