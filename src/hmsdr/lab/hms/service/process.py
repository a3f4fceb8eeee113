"""One pod's process: from its environment to a listening server, and down again within two seconds of SIGTERM.

After SIGTERM it serves on for a moment: whoever sends it requests must first hear that it is leaving.

Imported before a fork: importing it opens nothing and starts nothing.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping

from aiohttp import web

from hmsdr.errors import ExitStatus, RefusedError
from hmsdr.lab.hms.service.app import Service
from hmsdr.lab.hms.service.settings import Settings, read

_LEAVE_SECONDS, _STOP_SECONDS = 0.7, 1.0
_log = logging.getLogger("hms")


def main(environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; gives the exit status.

    Args:
        environ: the pod's environment, which is all that it reads.
    """
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    try:
        settings = read(environ)
    except RefusedError as error:
        _log.error("%s", error)
        return ExitStatus.REFUSED
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    service = Service(settings, _log.info)
    runner = web.AppRunner(
        service.app(), access_log=None, handle_signals=False, shutdown_timeout=_STOP_SECONDS
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.listen.host, settings.listen.port, reuse_address=True)
        await site.start()
    except OSError as error:
        _log.error("listening on %s: %s", settings.listen, error.strerror)
        await runner.cleanup()
        return ExitStatus.FAILED
    _log.info("%s-service %s listens on %s", settings.service, settings.pod, settings.listen)
    watching = asyncio.create_task(service.watch())
    stopping = asyncio.create_task(stop.wait())
    try:
        await service.start()
        await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        _log.info("stopping")
        service.leave()
        await asyncio.sleep(_LEAVE_SECONDS)
    finally:
        for task in (watching, stopping):
            task.cancel()
        await asyncio.gather(watching, stopping, return_exceptions=True)
        await runner.cleanup()
        await service.close()
    return ExitStatus.DONE
