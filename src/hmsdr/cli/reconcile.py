"""``hmsdr reconcile``: what a region's old primary committed that the new one never saw, and the file with it. A face only.

The file is patients' data: it is shown by counts, and fetched only to where somebody names, over a line that nobody else reads.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from hmsdr.cli.common import opened, playbook_option, run_async
from hmsdr.decide.lsn import format_lsn
from hmsdr.drivers.agent import AgentClient
from hmsdr.drivers.agent_answers import LostAnswer
from hmsdr.errors import FailedError, RefusedError
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.systems import Systems

_SECONDS = 6 * 3600.0
_ASK_SECONDS = 30.0


@click.command()
@click.argument("region")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Fetch the newest file to here. It is patients' data."
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@playbook_option
def reconcile(region: str, out: Path | None, as_json: bool, playbook_path: Path | None) -> None:
    """What REGION's database committed that the present primary never saw: found out if need be, and shown by counts.

    Nothing is rewound. A database that went its own way is stopped while it is looked at; one that streams is left alone.
    """
    run_async(_reconcile(playbook_path, region, out, as_json=as_json))


async def _reconcile(path: Path | None, region: str, out: Path | None, *, as_json: bool) -> None:
    async with opened(path) as (playbook, store):
        _refuse_region(playbook, region)
        record = await store.read_authority()
        systems = Systems(playbook, store)
        try:
            agent = systems.agent(region)
            holder = playbook.regions[playbook.other_region(region)].postgres
            if record.holder is not None and record.holder.instance == holder.instance:
                await agent.reconcile(
                    epoch=record.epoch,
                    primary_host=holder.host,
                    primary_port=holder.port,
                    deadline=_SECONDS,
                )
            found = await agent.lost(deadline=_ASK_SECONDS)
            if as_json:
                click.echo(json.dumps({"region": region, "directory": found.directory, "lost": found.lost}))
            else:
                click.echo(in_words(region, found))
            if out is not None:
                await _fetch(agent, region, found, out)
        finally:
            await systems.close()
    if found.lost and not found.lost[-1]["complete"]:
        raise FailedError(
            f"reconciling {region}",
            "not every lost row is known",
            "docs/agent.md, 'What was lost', says what can be done",
        )


def _refuse_region(playbook: Playbook, region: str) -> None:
    if region not in playbook.regions:
        known = f"Known: {', '.join(playbook.regions)}"
        raise RefusedError(
            f"reconciling {region!r}", "no such region", nearest(region, playbook.regions) or known
        )


def in_words(region: str, found: LostAnswer) -> str:
    """Fork by fork, the newest last."""
    if not found.lost:
        return f"{region} has committed nothing that the present primary never saw"
    return "\n\n".join(_one(region, lost, found.directory) for lost in found.lost)


def _one(region: str, lost: Mapping[str, Any], directory: str) -> str:
    commits, size, seconds = lost["commits"], lost["bytes"], lost["seconds"]
    known = (
        "an unknown amount" if commits is None else f"{commits} commits, {size} bytes of WAL, {seconds:.1f} s"
    )
    lines = [f"{region} from {format_lsn(lost['fork'])} on: {known}"]
    if lost["file"] is not None:
        tables = ", ".join(f"{name} {count}" for name, count in lost["tables"].items()) or "none"
        lines += [
            f"  rows         {lost['rows']} in {lost['transactions']} transactions ({tables})",
            f"  of its own   {lost['own']} transactions of the agent (heartbeats)",
            f"  file         {directory}/{lost['file']}",
            f"  sha256       {lost['sha256']}",
        ]
    if lost["unidentified"]:
        lines.append(f"  unidentified {lost['unidentified']} updates and deletes in tables without a key")
    if not lost["complete"]:
        lines.append(f"  NOT COMPLETE {lost['why']}")
    if lost["accepted_by"]:
        lines.append(f"  accepted     by {lost['accepted_by']}: {lost['accepted_because']}")
    return "\n".join(lines)


async def _fetch(agent: AgentClient, region: str, found: LostAnswer, out: Path) -> None:
    """The newest file, checked by its digest, readable by its owner only."""
    doing = f"fetching the lost rows of {region} to {out}"
    newest = next((lost for lost in reversed(found.lost) if lost["file"] is not None), None)
    if newest is None:
        raise RefusedError(doing, "there is no file", "Nothing was extracted: see above")
    _refuse_open_line(doing, agent.endpoint.url)
    digest, offset, size = hashlib.sha256(), 0, int(newest["size"])
    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            while offset < size:
                part, _ = await agent.lost_part(newest["file"], offset, deadline=_ASK_SECONDS)
                if not part:
                    break
                digest.update(part)
                file.write(part)
                offset += len(part)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise RefusedError(doing, "it is there already", "Name a new file") from error
    except OSError as error:
        raise FailedError(doing, str(error), "Name a file that can be written") from error
    if digest.hexdigest() != newest["sha256"]:
        out.unlink()
        raise FailedError(doing, "it is not what its digest says", "Look at the disk of the agent; try again")
    click.echo(f"{out}: {size} bytes, as its digest says", err=True)


def _refuse_open_line(doing: str, url: str) -> None:
    """Patients' data goes through TLS, or stays on the machine."""
    parts = urlsplit(url)
    with suppress(ValueError):
        if ipaddress.ip_address(parts.hostname or "").is_loopback:
            return
    if parts.scheme != "https":
        raise RefusedError(
            doing, f"{url} is not encrypted", "Turn TLS on at the agent, or copy the file from its directory"
        )
