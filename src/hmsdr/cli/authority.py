"""``hmsdr authority``: who may write, and the protocol's own transitions for people (SAFETY rule 5).

The break-glass way of a printed runbook. Every change goes through the same pure state machine as a run's, and
is on the record with the name of who asked.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import click

from hmsdr.cli.common import by_option, opened, playbook_option, run_async
from hmsdr.decide.authority import (
    Authority,
    AuthorityRefused,
    Holder,
    LeaseWaited,
    Receipt,
    grant,
    prove_fenced,
    required_wait,
    revoke,
)
from hmsdr.decide.lsn import format_lsn
from hmsdr.errors import RefusedError
from hmsdr.log.events import NewEvent
from hmsdr.log.store import Store
from hmsdr.runbook.systems import Systems


@click.group()
def authority() -> None:
    """Show who may write, and change it by the protocol."""


@authority.command()
@playbook_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def show(playbook_path: Path | None, as_json: bool) -> None:
    """Who holds the right to write."""
    run_async(_show(playbook_path, as_json))


async def _show(playbook_path: Path | None, as_json: bool) -> None:
    async with opened(playbook_path) as (_, store):
        record = await store.read_authority()
    if as_json:
        click.echo(json.dumps(_as_json(record)))
    else:
        click.echo(_in_words(record))


@authority.command("revoke")
@click.option("--epoch", type=int, required=True, help="The epoch that is to end.")
@by_option
@playbook_option
def revoke_command(playbook_path: Path | None, epoch: int, by: str) -> None:
    """Make renewals fail. Proof of fencing comes next."""
    run_async(_apply(playbook_path, by, "revoking the right to write", lambda record: revoke(record, epoch)))


@authority.command()
@click.option("--epoch", type=int, required=True, help="The epoch that is to end.")
@click.option("--receipt", type=click.File("r"), help="The agent's fence receipt, as JSON.")
@click.option("--wait", is_flag=True, help="No receipt: wait the lease out, counted from now.")
@by_option
@playbook_option
def prove(playbook_path: Path | None, epoch: int, receipt: TextIO | None, wait: bool, by: str) -> None:
    """Free the right to write, on a receipt or after the whole wait."""
    if (receipt is None) == (not wait):
        raise click.UsageError("Give one of --receipt FILE and --wait.")
    run_async(_prove(playbook_path, epoch, None if receipt is None else receipt.read(), by))


async def _prove(playbook_path: Path | None, epoch: int, receipt: str | None, by: str) -> None:
    if receipt is not None:
        proof = _parse_receipt(receipt, epoch)
        await _apply(playbook_path, by, "proving the fence", lambda record: prove_fenced(record, proof))
        return
    # Revoked again, harmlessly, so that the wait is surely counted from a revocation of ours.
    await _apply(playbook_path, by, "revoking the right to write", lambda record: revoke(record, epoch))
    since = time.monotonic()
    async with opened(playbook_path) as (playbook, store):
        margin = playbook.database.drift_margin
        needed = required_wait(await store.read_authority(), margin)
    with click.progressbar(length=100, label=f"waiting {needed:.1f} s for the lease to run out") as bar:
        for _ in range(100):
            await asyncio.sleep(needed / 100)
            bar.update(1)
    waited = LeaseWaited(epoch, time.monotonic() - since, margin)
    await _apply(playbook_path, by, "freeing the right to write", lambda record: prove_fenced(record, waited))


@authority.command("grant")
@click.argument("region")
@click.option("--epoch", type=int, required=True, help="The next epoch.")
@by_option
@playbook_option
def grant_command(playbook_path: Path | None, region: str, epoch: int, by: str) -> None:
    """Give the free right to write to REGION's database."""
    run_async(_grant(playbook_path, region, epoch, by))


async def _grant(playbook_path: Path | None, region: str, epoch: int, by: str) -> None:
    async with opened(playbook_path) as (playbook, store):
        if region not in playbook.regions:
            raise RefusedError(
                f"granting to {region!r}", "no such region", f"Known: {', '.join(playbook.regions)}"
            )
        systems = Systems(playbook, store)
        try:
            status = await systems.agent(region).status(deadline=5.0)
        finally:
            await systems.close()
    holder = Holder(status.instance, status.incarnation)

    def to_holder(record: Authority) -> Authority:
        if record.epoch + 1 != epoch:
            raise AuthorityRefused(f"the next epoch is {record.epoch + 1}, not {epoch}")
        return grant(record, holder)

    await _apply(playbook_path, by, f"granting epoch {epoch} to {region}", to_holder)


async def _apply(
    playbook_path: Path | None, by: str, doing: str, transition: Callable[[Authority], Authority]
) -> None:
    """One transition, by compare-and-swap, on the record before and after."""
    async with opened(playbook_path) as (_, store):
        record = await store.read_authority()
        try:
            new = transition(record)
        except AuthorityRefused as refusal:
            raise RefusedError(doing, str(refusal), "`hmsdr authority show` tells who holds it") from refusal
        await _note(store, "authority.change_asked", by, {"doing": doing, "from": _as_json(record)})
        if new != record and not await store.swap_authority(record, new):
            raise RefusedError(doing, "somebody else changed it meanwhile", "Look at it again, then decide")
        await _note(store, "authority.changed", by, {"doing": doing, "to": _as_json(new)})
    click.echo(_in_words(new))


async def _note(store: Store, kind: str, by: str, data: dict[str, object]) -> None:
    await store.append([NewEvent(kind, "authority", by, data)], expected=await store.head())


def _parse_receipt(text: str, epoch: int) -> Receipt:
    try:
        raw = json.loads(text)
        return Receipt(
            instance=raw["instance"],
            incarnation=raw["incarnation"],
            epoch=epoch if int(raw["epoch"]) == epoch else int(raw["epoch"]),
            last_lsn=raw["last_lsn"],
            clean=bool(raw["clean"]),
            survivors=int(raw["survivors"]),
            unused=bool(raw.get("unused", False)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(
            "reading the fence receipt", f"it is not what an agent answers ({error})", "Ask the agent again"
        ) from error


def _as_json(record: Authority) -> dict[str, object]:
    return {
        "epoch": record.epoch,
        "phase": str(record.phase),
        "holder": record.holder.instance if record.holder else None,
        "lease_seconds": record.lease_seconds,
        "handover_to": record.handover_to,
        "handover_lsn": None if record.handover_lsn is None else format_lsn(record.handover_lsn),
    }


def _in_words(record: Authority) -> str:
    who = f" by {record.holder.instance}" if record.holder else ""
    to = f" to {record.handover_to}" if record.handover_to else ""
    return f"epoch {record.epoch}: {str(record.phase).replace('_', ' ')}{who}{to}, lease {record.lease_seconds:g} s"
