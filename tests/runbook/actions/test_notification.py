"""Telling the team, through the runner, at the lab's own receivers: which channel took it, and what is kept of it."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from aiohttp import web
from support import plan, step

from hmsdr.incident.checklists import ItemState, post_failover, pre_failover
from hmsdr.lab.channels.__main__ import Receivers
from hmsdr.lab.channels.kept import Kept, messages
from hmsdr.lab.layout import Endpoint, Layout
from hmsdr.lab.overlay import webhook_token, write_playbook
from hmsdr.lab.ports import choose_ports, claim_networks, lay_out
from hmsdr.lab.tls import write_certificates
from hmsdr.log.sqlite import SqliteStore
from hmsdr.playbook.load import load
from hmsdr.runbook.actions.notification import NotifyArgs, NotifyTeam
from hmsdr.runbook.catalogue import installed
from hmsdr.runbook.runner import Runner
from hmsdr.runbook.state import RunState, RunStatus
from hmsdr.runbook.systems import Systems

ROUTE = {"source": "us-east-1", "target": "us-west-2"}
Tell = Callable[..., Awaitable[RunState]]


@pytest_asyncio.fixture
async def layout(tmp_path: Path) -> AsyncIterator[Layout]:
    """The lab's receivers, serving."""
    networks = claim_networks(tmp_path, None)
    made = lay_out(tmp_path, "lab-x", None, networks, choose_ports(networks, {}))
    networks.close()
    # A port of the kernel's choice on an address of the lab's own: nobody else is there.
    with socket.socket() as probe:
        probe.bind((made.channels.host, 0))
        made = replace(made, channels=Endpoint(made.channels.host, probe.getsockname()[1]))
    write_playbook(made)
    made.ca_file.parent.mkdir()
    write_certificates(made.ca_file.parent, ["x.example"], [])
    runner = web.AppRunner(Receivers(made, Kept(made)).app(), access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, made.channels.host, made.channels.port).start()
    yield made
    await runner.cleanup()


@pytest_asyncio.fixture
async def tell(layout: Layout, tmp_path: Path) -> AsyncIterator[Tell]:
    """Runs a plan of one notification; what was logged must not have a webhook's secret in it."""
    store = await SqliteStore.open(tmp_path / "store.db", create=True, lease_seconds=4)
    opened: list[Systems] = []

    async def run(channels: dict[str, Any], *, moment: str = "begun", attempts: int = 1) -> RunState:
        values = yaml.safe_load(layout.playbook.read_text())
        values["channels"] = channels
        path = layout.playbook.with_name("changed.yaml")
        path.write_text(yaml.safe_dump(values))
        opened.append(Systems(load(path), store))
        arguments = {"moment": moment, **ROUTE}
        key = "announcement/begun" if moment == "begun" else "notification/ended"
        one = step(key, "notify.team", arguments, deadline="15s", attempts=attempts)
        made = plan([(key.partition("/")[0], (), [[one]])])
        return await Runner(store, opened[-1], installed(), f"run-{len(opened)}").start(made, "tester", {})

    yield run
    logged = json.dumps([[event.kind, event.data] for event in await store.read()])
    for kind in ("slack", "teams"):
        assert webhook_token(layout, kind) not in logged
    for systems in opened:
        await systems.close()
    await store.close()


def received(layout: Layout) -> list[dict[str, Any]]:
    return [json.loads(line) for line in messages(layout).read_text().splitlines()]


def endpoints(layout: Layout, **instead: str) -> dict[str, Any]:
    urls = {kind: f"${{file:secrets/{kind}-webhook}}" for kind in ("slack", "teams")}
    for kind, url in instead.items():
        (layout.directory / "secrets" / kind).write_text(url)
        urls[kind] = f"${{file:secrets/{kind}}}"
    return {"endpoints": urls}


@pytest.mark.req("CM-1", "FA-2")
async def test_the_team_is_told_once_and_the_checklist_says_where(layout: Layout, tell: Tell) -> None:
    state = await tell(endpoints(layout))
    (message,) = received(layout)
    assert (message["kind"], message["channel"], message["key"]) == (
        "slack",
        "#incident-response",
        "run-1/begun",
    )
    assert "us-east-1 (US East (N. Virginia)) to us-west-2 (US West (Oregon)) has begun" in message["text"]
    items = {item.title: item for item in pre_failover(state)}
    assert items["Stakeholders notified"].evidence == "told on slack:#incident-response"
    assert items["Communication channels ready"].state is ItemState.DONE
    ended = await tell(endpoints(layout), moment="ended")
    done = post_failover(ended)[-1]
    assert (done.title, done.state) == ("Stakeholders notified of completion", ItemState.DONE)
    assert "serves the hospital now" in received(layout)[1]["text"]


@pytest.mark.req("CM-1")
async def test_the_backup_channel_when_the_first_refuses_is_dead_or_silent(
    layout: Layout, tell: Tell
) -> None:
    async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asyncio.start_server(swallow, layout.channels.host, 0)
    silent = server.sockets[0].getsockname()[1]
    there = layout.channels
    for number, url in enumerate(
        (
            f"http://{there}/slack/wrong-token-ä",
            f"http://{there.host}:1/slack/x",
            f"http://{there.host}:{silent}/slack/x",
            "no url",
        ),
        start=1,
    ):
        state = await tell(endpoints(layout, slack=url))
        assert state.status is RunStatus.SUCCEEDED
        assert [each["kind"] for each in received(layout)] == ["teams"] * number
        evidence = {item.title: item.evidence for item in pre_failover(state)}["Stakeholders notified"]
        assert evidence.startswith("told on teams:Incident Response (before that: slack:#incident-response: ")
    server.close()


@pytest.mark.req("CM-1")
async def test_nobody_takes_it_then_who_to_call_is_said_with_numbers(layout: Layout, tell: Tell) -> None:
    dead = f"http://{layout.channels.host}:1/x"
    for channels, words in (
        (endpoints(layout, slack=dead, teams=dead), "not reachable"),
        ({"endpoints": {}}, "no endpoint in channels.endpoints"),
    ):
        state = await tell(channels, attempts=2)
        assert state.status is RunStatus.FAILED
        error = state.record("announcement/begun").error or {}
        assert error["found"].count(words) == 2
        assert error["remedy"] == "Call: Ada Quill +12025550101, Edda Thorne +12025550105"
        told = {item.title: item for item in pre_failover(state)}["Stakeholders notified"]
        assert told.state is ItemState.OPEN
        assert "Call: Ada Quill" in told.evidence
    assert received(layout) == []
    # Without any endpoint, trying again cannot help.
    assert state.record("announcement/begun").attempt == 1


async def test_the_line_for_people_posts_the_same_and_has_no_secret(layout: Layout) -> None:
    playbook = load(layout.playbook)
    args = NotifyArgs(moment="ended", **ROUTE)
    (line,) = NotifyTeam().manual(playbook, args).commands
    assert webhook_token(layout, "slack") not in line
    url = (layout.directory / "secrets" / "slack-webhook").read_text().strip()
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", line, env={"HMSDR_SLACK_WEBHOOK": url, "PATH": "/usr/bin:/bin"}
    )
    assert await asyncio.wait_for(process.wait(), 10) == 0
    (message,) = received(layout)
    assert message["channel"] == "#incident-response"
    assert message["text"] in json.loads(shlex.split(line)[shlex.split(line).index("-d") + 1])["text"]
