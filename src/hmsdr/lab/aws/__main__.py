"""``python -m hmsdr.lab.aws --lab DIR``: moto on its own address, the strict layer in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from pathlib import Path

import click
from moto.server import ThreadedMotoServer

from hmsdr.lab.aws.server import StrictAws, serve
from hmsdr.lab.aws.zones import Budget, Zones
from hmsdr.lab.layout import Layout

REQUESTS_PER_SECOND = 5.0
BURST = 10
"""Route 53 allows five requests a second for an account, and forgives a short burst."""


@click.command()
@click.option("--lab", type=click.Path(path_type=Path), required=True)
@click.option(
    "--insync-delay", type=float, default=0.25, show_default=True, help="Seconds until a change is in sync."
)
@click.option("--rate", type=float, default=REQUESTS_PER_SECOND, show_default=True)
def main(lab: Path, insync_delay: float, rate: float) -> None:
    """Serve the lab's AWS API."""
    layout = Layout.load(lab)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address=layout.moto.host, port=layout.moto.port, verbose=False)
    moto.start()
    state = layout.directory / "aws"
    state.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run(layout, state, insync_delay, rate))
    moto.stop()


async def _run(layout: Layout, state: Path, insync_delay: float, rate: float) -> None:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    strict = StrictAws(
        Zones(state / "route53.json", insync_delay), Budget(rate, BURST), f"http://{layout.moto}"
    )
    await serve(strict.app(), layout.aws.host, layout.aws.port)


if __name__ == "__main__":
    main()
