"""A reader that is stuck costs log lines, which are counted and said; never the time of who logs, never a lease."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hospital import Hospital, Open, Region, until

from hmsdr.control.logs import Lines

PIPE = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that is full to the brim, and whose end to write to waits for a reader."""
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, PIPE)
    os.set_blocking(writes, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writes, b".")
    os.set_blocking(writes, True)
    yield reads, writes
    for each in (reads, writes):
        with suppress(OSError):
            os.close(each)


def drained(reads: int, seconds: float) -> bytes:
    os.set_blocking(reads, False)
    found, ends = b"", time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            found += os.read(reads, 65536)
        except BlockingIOError:
            time.sleep(0.02)
    return found


def lines(said: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.lstrip(b".").splitlines()]


def test_who_logs_never_waits_and_what_is_dropped_is_counted_and_said(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    log = Lines(writes, room=10)
    began = time.monotonic()
    for number in range(100):
        log.put(b'{"number": %d}\n' % number)
    assert time.monotonic() - began < 1
    assert log.flush(0.2) is False
    assert 89 <= log.dropped <= 90, "one line is on its way, ten wait"
    found = lines(drained(reads, 1))
    numbers = [each["number"] for each in found[:-1]]
    assert len(numbers) == 100 - log.dropped
    # Which one the last was that found room depends on when the writer took its first.
    assert numbers[:10] == list(range(10))
    assert numbers == sorted(numbers)
    assert (found[-1]["event"], found[-1]["lines"]) == ("log.dropped", log.dropped)
    assert log.flush(1) is True


def test_all_is_written_before_the_process_ends() -> None:
    code = "from hmsdr.control.logs import log\nfor n in range(1500): log('x', n=n)"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, timeout=30, check=True)
    assert [each["n"] for each in lines(done.stderr)] == list(range(1500))


def test_the_end_of_the_process_waits_for_a_stuck_reader_no_longer_than_a_bound(
    pipe: tuple[int, int],
) -> None:
    began = time.monotonic()
    code = "from hmsdr.control.logs import log; log('x')"
    subprocess.run([sys.executable, "-c", code], stderr=pipe[1], timeout=20, check=True)
    assert time.monotonic() - began < 10


def test_what_libraries_warn_of_goes_the_same_way() -> None:
    code = (
        "import logging\nfrom hmsdr.control.logs import take_over_libraries\ntake_over_libraries()\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.getLogger('asyncio').exception('a task failed')"
    )
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, timeout=30, check=True)
    (line,) = lines(done.stderr)
    assert (line["event"], line["logger"], line["level"]) == ("library.said", "asyncio", "error")
    assert line["found"] == "a task failed: ZeroDivisionError: division by zero"


async def killed(region: Region, kills: int) -> None:
    """The guard has killed the database for the `kills`-th time."""

    async def counted() -> bool:
        return region.guard().kills >= kills and not region.processes()

    await until("the guard killed it", counted, 15)


async def primary_again(here: Hospital) -> None:
    async def writes() -> bool:
        status = await here.east.status()
        return status.database.state == "primary" and status.lease.held

    await until("east writes", writes, 30)


@pytest.mark.req("FA-4")
async def test_an_agent_whose_standard_error_nobody_reads_keeps_its_lease_and_its_guard_guards(
    hospital: Open, pipe: tuple[int, int]
) -> None:
    reads, writes = pipe
    here = await hospital(lease="2s")
    here.east.start(stderr=writes)
    await here.east.wait_state("standby", seconds=30)
    await here.grant(here.east)
    await here.east.client.promote(epoch=1, min_lsn=None, deadline=20)
    first = here.east.guard().deadline()
    assert first is not None

    async def renewed() -> bool:
        deadline = here.east.guard().deadline()
        return deadline is not None and deadline > first + 6

    await until("three leases were renewed", renewed, 15)
    assert (await here.east.status()).database.state == "primary"
    # The guard speaks after it has killed; it must be there for the next time.
    for times in (1, 2):
        here.east.agent.send_signal(signal.SIGSTOP)
        await killed(here.east, times)
        here.east.agent.send_signal(signal.SIGCONT)
        await primary_again(here)
    said = await asyncio.to_thread(drained, reads, 2)
    events = [each["event"] for each in lines(said)]
    assert {"agent.started", "guard.killed"} <= set(events)
