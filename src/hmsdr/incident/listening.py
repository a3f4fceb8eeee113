"""What a keeper serves beside its rounds: Alertmanager's webhook, and the pages behind signed links. It puts together and decides nothing."""

from __future__ import annotations

import asyncio

from aiohttp import web

from hmsdr.decide.links import key_of
from hmsdr.errors import RefusedError
from hmsdr.incident import answering, contacts, intake, receiving
from hmsdr.incident.alertmanager import MOST_BYTES
from hmsdr.incident.desk import Desk
from hmsdr.incident.post import callback_url
from hmsdr.log.store import EventLog
from hmsdr.playbook.model import Playbook


def application(desk: Desk, log: EventLog, playbook: Playbook) -> web.Application:
    """All that the playbook gives a key for.

    Args:
        desk: of the log; its own, for requests come beside everything else.
        log: where alerts and answers go.
        playbook: with `prometheus.alerts_key`, `channels.links` or both.

    Raises:
        RefusedError: it has neither, or the key of the links is too short.
    """
    alerts, links = playbook.prometheus.alerts_key, key_of(playbook)
    if alerts is None and links is None:
        raise RefusedError(
            "listening for alerts and answers",
            "the playbook has no prometheus.alerts_key, and no channels.links",
            "Without a key anybody could declare incidents, or answer them: give one of the two",
        )
    app = web.Application(client_max_size=MOST_BYTES)
    lock = asyncio.Lock()
    if alerts is not None:
        intake.add_routes(app, desk, log, alerts.get_secret_value(), lock)
    if links is not None:
        answering.add_routes(app, desk, log, playbook, links, lock)
        contacts.add_routes(app, contacts.Contacts(playbook, log), playbook, links)
    if (url := callback_url(playbook)) is not None:
        receiving.add_routes(app, log, playbook, url)

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app.router.add_get("/healthz", healthy)
    return app
