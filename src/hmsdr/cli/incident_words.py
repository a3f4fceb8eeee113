"""``hmsdr incident preview|send|keep``: messages as they would go out now, sending them, and keeping at it. A face only."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from hmsdr.cli.common import by_option, opened, playbook_option, run_async
from hmsdr.cli.desks import desk_of, json_option
from hmsdr.cli.serving import address, serving, stop_on_signals
from hmsdr.control.logs import log
from hmsdr.decide.incident import Word
from hmsdr.decide.links import key_of
from hmsdr.decide.messages import TEAM, Message, compose
from hmsdr.decide.outbox import Outbox
from hmsdr.errors import FailedError, RefusedError
from hmsdr.incident.desk import Desk
from hmsdr.incident.keeper import Keeper, escalation, queue, reachable, said_by_hand
from hmsdr.incident.listening import application
from hmsdr.incident.post import Post
from hmsdr.incident.publisher import Publisher
from hmsdr.incident.snapshot import beside
from hmsdr.log.store import Store
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.model import Playbook

_AGAIN_SECONDS = 0.5


@click.command()
@click.argument("name", metavar="INCIDENT")
@click.argument("word", type=click.Choice([str(word) for word in Word]))
@click.option("--audience", "audiences", multiple=True, help="For whom; everybody without it.")
@json_option
@playbook_option
def preview(
    name: str, word: str, audiences: tuple[str, ...], as_json: bool, playbook_path: Path | None
) -> None:
    """The first word, an update or the resolution of INCIDENT as it would be written now, for each audience.

    Fields that nobody has filled are marked; what may tell of a patient is withheld, and named on standard error.
    """
    found = run_async(_composed(playbook_path, name, Word(word), audiences))
    if as_json:
        click.echo(json.dumps([asdict(message) for message in found]))
    else:
        click.echo("\n\n".join(_shown(message) for message in found))
    for message in found:
        for each in message.withheld:
            click.echo(
                f"{message.audience}: {each.where} is withheld: it looks like {each.looks_like}. Note it anew without.",
                err=True,
            )


async def _composed(path: Path | None, name: str, word: Word, audiences: tuple[str, ...]) -> list[Message]:
    doing = f"writing the messages of {name}"
    async with desk_of(path) as (playbook, _, desk):
        known = (TEAM, *playbook.audiences)
        for each in audiences:
            if each not in known:
                raise RefusedError(
                    doing, f"the playbook has no audience {each!r}", nearest(each, known) or ", ".join(known)
                )
        incident = await desk.incident(name, doing)
        now = datetime.now(UTC)
        return [
            compose(incident, playbook, each, word, now, language)
            for each in audiences or known
            for language in (playbook.audiences[each].languages if each in playbook.audiences else ("en",))
        ]


def _shown(message: Message) -> str:
    missing = (
        f"\n({len(message.missing)} not known yet: {', '.join(message.missing)})" if message.missing else ""
    )
    return (
        f"── {message.audience} ({message.language})\nSUBJECT: {message.subject}\n\n{message.body}{missing}"
    )


@click.command()
@click.argument("name", metavar="INCIDENT")
@click.argument("word", type=click.Choice([str(word) for word in Word]))
@click.option("--by-hand", metavar="TEXT", help="Nothing is sent: you told them yourself, and how.")
@click.option("--audience", help="Only this one; everybody who has an endpoint without it.")
@click.option("--seconds", type=click.FloatRange(1, 600), default=60.0, help="Wait so long for delivery.")
@by_option
@json_option
@playbook_option
def send(
    name: str,
    word: str,
    by_hand: str | None,
    audience: str | None,
    seconds: float,
    by: str,
    as_json: bool,
    playbook_path: Path | None,
) -> None:
    """Send the first word, an update or the resolution of INCIDENT to the response team and everybody who has an endpoint.

    Who has none is told by hand: `preview` writes their messages, --by-hand records that they were told.
    """
    if by_hand is not None:
        told = run_async(_told(playbook_path, name, Word(word), audience or TEAM, by_hand, by))
        click.echo(json.dumps(told) if as_json else "\n".join(_sent_lines(told)))
        return
    found = run_async(_sent(playbook_path, name, Word(word), by, audience, seconds))
    click.echo(json.dumps(found) if as_json else "\n".join(_sent_lines(found)))
    late = [each for each in found if not each["sent"]]
    if late:
        raise FailedError(
            f"sending the {word} message of {name}",
            "; ".join(f"{each['audience']}: {each['found'] or 'no answer yet'}" for each in late),
            f"They stay queued for `hmsdr incident keep`. Call: {late[0]['escalation']}",
        )


async def _told(
    path: Path | None, name: str, word: Word, audience: str, how: str, by: str
) -> list[dict[str, Any]]:
    async with desk_of(path) as (playbook, _, desk):
        await said_by_hand(desk, playbook, name, word, audience, how, by)
    return [{"sent": True, "audience": audience, "channel": f"by hand: {how}", "maybe_twice": False}]


async def _sent(
    path: Path | None, name: str, word: Word, by: str, audience: str | None, seconds: float
) -> list[dict[str, Any]]:
    async with desk_of(path) as (playbook, store, desk):
        known = reachable(playbook)
        if audience is not None and audience not in known:
            raise RefusedError(
                f"sending the {word} message of {name}",
                f"nothing is sent to {audience} from here",
                f"`hmsdr incident preview {name} {word} --audience {audience}`, tell them, record it with --by-hand",
            )
        keys = await queue(desk, playbook, name, word, by, known if audience is None else (audience,))
        post = Post(playbook, store, by)
        until = time.monotonic() + seconds
        while True:
            await post.deliver()
            outbox = await post.outbox()
            if all(key in outbox.done for key in keys) or time.monotonic() > until:
                return [_state(outbox, key, escalation(playbook, datetime.now(UTC))) for key in keys]
            await asyncio.sleep(_AGAIN_SECONDS)


def _state(outbox: Outbox, key: str, call: str) -> dict[str, Any]:
    if (done := outbox.done.get(key)) is not None:
        told = {"channel": done.channel, "at": done.at.isoformat(), "maybe_twice": done.maybe_twice}
        return {"sent": True, "key": key, "audience": done.audience, **told}
    parcel = outbox.waiting[key]
    return {"sent": False, "key": key, "audience": parcel.audience, "found": parcel.found, "escalation": call}


def _sent_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for each in found:
        twice = ", maybe twice" if each.get("maybe_twice") else ""
        told = (
            f"told, {each['channel']}{twice}"
            if each["sent"]
            else f"queued, and not delivered yet: {each['found']}"
        )
        lines.append(f"{each['audience']}: {told}")
    return lines


@click.command()
@click.option("--interval", type=click.FloatRange(0.1, 60), default=1.0, help="Seconds between two rounds.")
@click.option(
    "--listen", "where", metavar="HOST:PORT", help="Serve Alertmanager's webhook and signed links there."
)
@playbook_option
def keep(interval: float, where: str | None, playbook_path: Path | None) -> None:
    """Keep incidents until SIGTERM: alerts get theirs, who is due is called, what is queued is sent.

    Several may run, also while others die: the log puts them in order.
    """
    asyncio.run(_keep(playbook_path, interval, None if where is None else address(where, "the keeper")))


async def _keep(path: Path | None, interval: float, where: tuple[str, int] | None) -> None:
    stop = stop_on_signals()
    async with opened(path) as (playbook, store):
        key_of(playbook)  # refused here, for a round would send its calls without links
        name = f"keeper@{socket.gethostname()}"
        keeper = Keeper(playbook, store, beside(playbook.store.path), name)
        async with AsyncExitStack() as stack:
            if where is not None:
                await _listen(stack, playbook, store, where)
            if playbook.status_page is not None:
                desk = Desk(playbook, store, beside(playbook.store.path))
                publisher = Publisher(playbook, playbook.status_page, desk)
                stack.push_async_callback(publisher.close)
                task = asyncio.create_task(publisher.run(stop, max(1.0, interval), _report))
                stack.callback(task.cancel)
            await keeper.run(stop, interval, _report)


async def _listen(stack: AsyncExitStack, playbook: Playbook, store: Store, where: tuple[str, int]) -> None:
    desk = Desk(playbook, store, beside(playbook.store.path))
    served = application(desk, store, playbook)
    await stack.enter_async_context(serving(served, *where, None, "alerts and answers"))


def _report(found: str) -> None:
    log("incident.not_kept", level="warning", found=found)
