"""``python -m hmsdr.lab.hms.ingress --lab DIR --region R``: serves HTTP and HTTPS until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import aiohttp
import click
from aiohttp import web

from hmsdr.errors import FailedError, HmsdrError, RefusedError
from hmsdr.lab.hms.ingress.endpoints import Backends, follow_all
from hmsdr.lab.hms.ingress.proxy import Ingress
from hmsdr.lab.hms.ingress.routes import Routes
from hmsdr.lab.layout import Endpoint, Layout

_STOP_SECONDS = 1.0
_log = logging.getLogger("ingress")


@click.command()
@click.option("--lab", required=True, type=click.Path(path_type=Path), help="The lab's directory.")
@click.option("--region", required=True, help="The region whose ingress this is.")
def main(lab: Path, region: str) -> None:
    """Serve one region's ingress."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_serve(lab, region))
    except HmsdrError as error:
        click.echo(str(error), err=True)
        raise SystemExit(error.status) from None


async def _serve(lab: Path, region: str) -> None:
    layout = _layout(lab)
    here = layout.regions.get(region)
    if here is None:
        raise RefusedError(
            f"reading --region {region}", "there is no such region", f"Known: {', '.join(layout.regions)}"
        )
    secure = _certificate(layout.ca_file.parent)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    backends, routes = Backends(), Routes()
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        runner = web.AppRunner(
            Ingress(region, backends, routes, session).app(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=_STOP_SECONDS,
        )
        await runner.setup()
        following = asyncio.create_task(follow_all(here.kubernetes, backends, routes, _log.info))
        try:
            await _listen(runner, here.ingress_http, None)
            await _listen(runner, here.ingress_https, secure)
            _log.info("ingress of %s listens on %s and %s", region, here.ingress_http, here.ingress_https)
            await stop.wait()
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            await runner.cleanup()


async def _listen(runner: web.AppRunner, at: Endpoint, secure: ssl.SSLContext | None) -> None:
    try:
        await web.TCPSite(runner, at.host, at.port, ssl_context=secure, reuse_address=True).start()
    except OSError as error:
        raise FailedError(
            f"listening on {at}", error.strerror or str(error), "Stop what listens there"
        ) from error


def _layout(lab: Path) -> Layout:
    try:
        return Layout.load(lab)
    except FileNotFoundError as error:
        raise RefusedError(
            f"reading the lab in {lab}", "there is none", "Start it with `hmsdr lab up`"
        ) from error


def _certificate(directory: Path) -> ssl.SSLContext:
    secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    files = (directory / "ingress.pem", directory / "ingress.key")
    try:
        secure.load_cert_chain(*files)
    except OSError as error:  # ssl.SSLError is one
        raise RefusedError(
            f"loading the ingress's certificate from {files[0]} and {files[1]}",
            error.strerror or str(error),
            "`hmsdr lab up` writes both before it starts an ingress",
        ) from error
    return secure


if __name__ == "__main__":
    main()
