"""``POST /v1/gateway``: where a gateway tells what became of a message, signed with the account's token. Receipts only; it sends nothing.

It is told here at once; what is lost on the way is asked for anyway (`Post.receipts`), so nothing rests on being called back. A
replay finds its receipt on the record, and adds nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from aiohttp import web

from hmsdr.decide.outbox import RECEIPT
from hmsdr.drivers.errors import DriverError
from hmsdr.drivers.gateway import SCHEMES, Gateway
from hmsdr.drivers.gateway_callback import HEADER, is_signed, read
from hmsdr.errors import HmsdrError
from hmsdr.incident.post import CALLBACK_PATH, Post
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import EventLog
from hmsdr.playbook.model import Playbook

_ACTOR = "gateway"
_LOG_SECONDS = 8.0
_MOST_FIELDS = 100
_NONE = "this is no status callback\n"


def accounts(playbook: Playbook) -> dict[str, str]:
    """Token of each account of the playbook's gateways, by its name."""
    groups = [playbook.channels.endpoints, *(each.endpoints for each in playbook.audiences.values())]
    urls = [url.get_secret_value() for group in groups for url in group.values()]
    found = {}
    for url in urls:
        if url.startswith(SCHEMES):
            # One that cannot be read is said by every sending; it keeps nobody from listening for the others.
            with suppress(DriverError):
                name, token = Gateway(url, "sms").account()
                found[name] = token
    return found


def add_routes(app: web.Application, log: EventLog, playbook: Playbook, url: str) -> None:
    """The way in.

    Args:
        app: where it is served.
        log: where receipts go.
        playbook: with the gateways' accounts.
        url: what the gateway was told to call, which it signs: behind a proxy it is not what arrives here.
    """
    tokens = accounts(playbook)
    post = Post(playbook, log, _ACTOR)
    lock = asyncio.Lock()

    async def told(request: web.Request) -> web.Response:
        form = await _form(request)
        if form is None:
            return web.Response(status=400, text=_NONE)
        token = tokens.get(form.get("AccountSid", ""))
        if token is None or not is_signed(token, url, form, request.headers.get(HEADER, "")):
            return web.Response(status=403, text="the signature is wrong\n")
        found = read(form)
        if found is None or not found.final:
            return web.Response(status=400, text=_NONE) if found is None else web.Response(status=204)

        async def known() -> Sequence[NewEvent]:
            done = (await post.outbox()).done
            return [
                NewEvent(RECEIPT, key, _ACTOR, {"channel": each.channel, "status": found.status})
                for key, each in done.items()
                if each.reference == found.reference and not each.receipt
            ]

        try:
            async with lock, asyncio.timeout(_LOG_SECONDS):
                await append_after(log, known, doing="recording what became of a message")
        except HmsdrError as error:
            return web.Response(status=503, text=f"{error}\n")
        except TimeoutError:
            return web.Response(status=503, text=f"the log did not take it within {_LOG_SECONDS:g} s\n")
        return web.Response(status=204)

    app.router.add_post(CALLBACK_PATH, told)


async def _form(request: web.Request) -> dict[str, str] | None:
    """Its fields, each once; None when it is no form, or has too many."""
    try:
        posted = await request.post()
    except (ValueError, LookupError):
        return None
    form = {name: value for name, value in posted.items() if isinstance(value, str)}
    return form if len(form) == len(posted) <= _MOST_FIELDS else None
