"""The prober against real servers: what it tells apart, that it spreads its questions, bounds them and says when it cannot keep up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from manners import Server, until

from hmsdr.control.prober import Prober, Seen, Verdict, Watched, phase, verdict
from hmsdr.drivers.http import HttpAnswer, HttpOutcome, HttpProbe

INTERVAL, TIMEOUT = 0.2, 0.1
DEADLINE = 15.0


class Counting(HttpProbe):
    """The real probe, which knows how many of its questions are open."""

    open = most = 0

    async def get(self, *given: Any, **named: Any) -> HttpAnswer:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            return await super().get(*given, **named)
        finally:
            self.open -= 1


@asynccontextmanager
async def probing(prober: Prober, probe: HttpProbe) -> AsyncIterator[None]:
    task = asyncio.create_task(prober.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await probe.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()


@pytest.mark.req("FA-1")
async def test_slow_wrong_and_half_open_answers_are_told_apart_from_none(server: Server) -> None:
    probe, told = HttpProbe(), []

    def change(endpoint: Watched, before: Seen | None, now: Seen) -> None:
        assert endpoint.name == "patient"
        if before is None or before.verdict is not now.verdict:
            told.append((before and before.verdict, now.verdict))

    prober = Prober(
        probe,
        [Watched("patient", server.url)],
        interval=INTERVAL,
        timeout=TIMEOUT,
        slow=0.03,
        on_look=change,
    )

    async def becomes(expected: Verdict) -> None:
        await until(lambda: "patient" in prober.last and prober.last["patient"].verdict is expected)

    async with probing(prober, probe):
        await becomes(Verdict.WELL)
        server.delay = 0.05
        await becomes(Verdict.SLOW)
        server.delay, server.status = 0.0, 503
        await becomes(Verdict.WRONG)
        assert prober.last["patient"].words == "HTTP 503"
        server.mute = True
        await becomes(Verdict.SILENT)
        await becomes(Verdict.HALF_OPEN)
        server.mute, server.status = False, 200
        await becomes(Verdict.WELL)
    assert told[0] == (None, Verdict.WELL)
    assert (Verdict.SILENT, Verdict.HALF_OPEN) in told
    assert all(before is not now for before, now in told)


@pytest.mark.req("FA-1")
async def test_who_refuses_is_none_and_is_found_again(server: Server) -> None:
    probe = HttpProbe()
    gone = Server()
    await gone.start()
    endpoints = [Watched("here", server.url), Watched("gone", gone.url)]
    await gone.stop()
    prober = Prober(probe, endpoints, interval=INTERVAL, timeout=TIMEOUT)
    async with probing(prober, probe):
        await until(lambda: len(prober.last) == 2)
        assert prober.last["gone"].verdict is Verdict.NONE
        assert prober.last["here"].verdict is Verdict.WELL
        assert prober.silent(prober.last["here"].at, DEADLINE) == []
        assert set(prober.silent(prober.last["here"].at + DEADLINE + 1, DEADLINE)) == {"here", "gone"}


async def test_connections_are_used_again(server: Server) -> None:
    probe = HttpProbe()
    prober = Prober(probe, [Watched("patient", server.url)], interval=INTERVAL, timeout=TIMEOUT)
    async with probing(prober, probe):
        await until(lambda: server.requests >= 5)
    assert server.connections == 1
    assert prober.asked >= 5


async def test_questions_are_spread_and_bounded(server: Server) -> None:
    server.mute = True
    probe = Counting()
    endpoints = [Watched(f"endpoint-{number}", server.url) for number in range(40)]
    prober = Prober(probe, endpoints, interval=INTERVAL, timeout=TIMEOUT, at_once=4)
    async with probing(prober, probe):
        await until(lambda: server.requests >= 8 and prober.skipped > 0)
    assert probe.most == 4
    assert probe.open == 0


def test_turns_are_spread_evenly_and_stay_when_others_come() -> None:
    phases = Counter(int(10 * phase(f"service-{number}.us-east-1")) for number in range(2000))
    assert set(phases) == set(range(10))
    assert max(phases.values()) < 1.5 * min(phases.values())


@pytest.mark.parametrize(
    ("outcome", "status", "expected"),
    [
        (HttpOutcome.ANSWERED, 200, Verdict.WELL),
        (HttpOutcome.ANSWERED, 302, Verdict.WRONG),
        (HttpOutcome.TIMEOUT, None, Verdict.SILENT),
        (HttpOutcome.HALF_OPEN, None, Verdict.HALF_OPEN),
        (HttpOutcome.RESET, None, Verdict.NONE),
        (HttpOutcome.REFUSED, None, Verdict.NONE),
        (HttpOutcome.DNS, None, Verdict.UNASKED),
        (HttpOutcome.TLS, None, Verdict.UNASKED),
    ],
)
def test_every_outcome_has_a_verdict(outcome: HttpOutcome, status: int | None, expected: Verdict) -> None:
    assert verdict(HttpAnswer(outcome, 0.01, status=status), slow=1.0) is expected


@pytest.mark.parametrize(
    ("names", "interval", "timeout"), [(("a", "a"), 5.0, 2.0), (("a", "b"), 2.0, 2.0), (("a", "b"), 2.0, 0.0)]
)
def test_what_cannot_be_watched_is_refused(names: tuple[str, ...], interval: float, timeout: float) -> None:
    with pytest.raises(ValueError, match=r"same name|does not fit"):
        Prober(
            HttpProbe(),
            [Watched(name, "http://127.0.0.1/") for name in names],
            interval=interval,
            timeout=timeout,
        )
