"""``python -m hmsdr.lab.hms.clinics --lab DIR --ledger FILE``: the clinics at work until SIGTERM."""

from __future__ import annotations

import asyncio
import itertools
import signal
import ssl
import time
from pathlib import Path

import click

from hmsdr.errors import FailedError, HmsdrError, RefusedError
from hmsdr.lab.hms.clinics.clinic import Clinic
from hmsdr.lab.hms.clinics.workload import Request, Workload
from hmsdr.lab.hms.ledger import HOSPITAL_ANSWERED, Entry, Ledger
from hmsdr.lab.hms.names import Names
from hmsdr.lab.layout import PUBLIC_NAME, SERVICES, Layout

_ASK_SECONDS = 0.1
_BEHIND_SECONDS = 1.0


@click.command()
@click.option("--lab", required=True, type=click.Path(path_type=Path), help="The lab's directory.")
@click.option("--ledger", required=True, type=click.Path(path_type=Path), help="JSONL file to append to.")
@click.option(
    "--rate", default=20.0, show_default=True, type=click.FloatRange(0.1, 500), help="Requests a second."
)
@click.option(
    "--clients", default=8, show_default=True, type=click.IntRange(1, 100), help="Number of clinics."
)
@click.option("--seed", default=None, type=int, help="Seed of the dice; random when not given.")
def main(lab: Path, ledger: Path, rate: float, clients: int, seed: int | None) -> None:
    """Play clinics at the hospital's public name."""
    try:
        asyncio.run(_work(lab, ledger, rate, clients, seed))
    except HmsdrError as error:
        click.echo(str(error), err=True)
        raise SystemExit(error.status) from None


class Clinics:
    """All clinics, one workload, one ledger."""

    def __init__(self, clinics: list[Clinic], ledger: Ledger, workload: Workload) -> None:
        self._clinics = itertools.cycle(clinics)
        self._ledger = ledger
        self._workload = workload
        self._numbers = itertools.count(ledger.next_n)
        # Steady within a run, and the wall clock's at its start: a clock that is set must not reorder what happened.
        self._epoch = time.time() - time.monotonic()

    async def work(self, rate: float) -> None:
        """Send at random moments, `rate` a second on average, until cancelled: however slow the answers are."""
        async with asyncio.TaskGroup() as tasks:
            due = time.monotonic()
            while True:
                due = max(due + self._workload.pause() / rate, time.monotonic() - _BEHIND_SECONDS)
                await asyncio.sleep(due - time.monotonic())
                tasks.create_task(self._attempt(next(self._clinics), self._workload.next(time.monotonic())))

    async def _attempt(self, clinic: Clinic, request: Request) -> None:
        n = next(self._numbers)
        sent = time.monotonic()
        outcome = await clinic.send(request)
        ended = time.monotonic()
        self._ledger.write(
            Entry(
                n=n,
                kind=request.kind,
                service=request.service,
                id=request.id,
                sent_at=round(self._epoch + sent, 6),
                ended_at=round(self._epoch + ended, 6),
                status=outcome.status,
                ok=outcome.ok,
                error=outcome.error,
                region=outcome.region,
                instance=outcome.instance,
                epoch=outcome.epoch,
                latency_ms=round((ended - sent) * 1000, 3),
            )
        )
        if outcome.ok:
            self._workload.succeeded(request)
        else:
            self._workload.failed(request, ended, answered=outcome.error in HOSPITAL_ANSWERED)


async def _work(lab: Path, path: Path, rate: float, clients: int, seed: int | None) -> None:
    layout, trust = _lab(lab)
    port = next(iter(layout.regions.values())).ingress_https.port
    clinics = [
        # Each has a resolver of its own, as clinics do: a share of users moves, and not all of them now and then.
        Clinic(f"https://{PUBLIC_NAME}:{port}", Names(layout.dns), trust)
        for _ in range(clients)
    ]
    ledger = Ledger(path)
    working = asyncio.create_task(_open_hours(clinics, ledger, Workload(seed), rate))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    try:
        await working
    except* asyncio.CancelledError:
        pass
    except* OSError as errors:
        found = "; ".join(str(error) for error in errors.exceptions)
        raise FailedError(
            f"writing the ledger {path}", found, "Make room, then start the clinics again"
        ) from None
    for clinic in clinics:
        await clinic.close()
    ledger.close()


async def _open_hours(clinics: list[Clinic], ledger: Ledger, workload: Workload, rate: float) -> None:
    """Begin when the hospital has opened; clinics that come back to a ledger do not wait: what fails is news."""
    if ledger.next_n == 1:
        for service in SERVICES:
            while not await clinics[0].healthy(f"/{service}-service/health"):  # noqa: ASYNC110 - it cannot tell us
                await asyncio.sleep(_ASK_SECONDS)
    await Clinics(clinics, ledger, workload).work(rate)


def _lab(lab: Path) -> tuple[Layout, ssl.SSLContext]:
    try:
        layout = Layout.load(lab)
        return layout, ssl.create_default_context(cafile=layout.ca_file)
    except OSError as error:
        found = f"{error.filename or lab}: {error.strerror or error}"
        raise RefusedError(f"reading the lab in {lab}", found, "Start it with `hmsdr lab up`") from error


if __name__ == "__main__":
    main()
