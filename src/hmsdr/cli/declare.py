"""``hmsdr declare disaster`` and ``hmsdr veto``: a person's word, on the record, that the controllers obey (FA-1). A face only."""

from __future__ import annotations

from pathlib import Path

import click

from hmsdr.cli.common import by_option, find_playbook, opened, playbook_option, run_async
from hmsdr.cli.launching import Shown, json_option, override_options, refuse_failure
from hmsdr.control.chronicle import DECLARED, VETOED
from hmsdr.control.following import follow
from hmsdr.decide.authority import Phase
from hmsdr.errors import RefusedError
from hmsdr.log.append import append_after
from hmsdr.log.events import NewEvent
from hmsdr.log.store import Store
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook
from hmsdr.runbook.launch import Overrides, launch
from hmsdr.runbook.place import alive, patience
from hmsdr.runbook.state import RunState

_FOLLOW_SECONDS = 1800.0


@click.group()
def declare() -> None:
    """Say what no probe can see."""


@declare.command()
@click.argument("region")
@override_options
@json_option
@playbook_option
def disaster(region: str, overrides: Overrides, as_json: bool, playbook_path: Path | None) -> None:
    """REGION is lost, or will be: leave it now; --reason and --by are required.

    No hold-down is waited for, nothing is asked of other sites. What still can hand over hands over, and nothing is lost; what
    cannot is fenced, or its lease is waited out. Gates hold.
    """
    if not overrides.reason or not overrides.by:
        raise RefusedError(
            f"declaring {region} lost", "no --reason or no --by", "It takes a named person and a reason"
        )
    playbook = load(find_playbook(playbook_path))
    shown = Shown(as_json=as_json, target=playbook.thresholds.targets.rto)
    refuse_failure(run_async(_declare(playbook_path, playbook, region, overrides, shown)))


async def _declare(
    path: Path | None, playbook: Playbook, region: str, overrides: Overrides, shown: Shown
) -> RunState:
    async with opened(path) as (_, store):
        epoch = await _epoch_of(playbook, store, region, f"declaring {region} lost")
        led = playbook.store.kind == "etcd" and await alive(store, patience(playbook))
        before = (await store.head()).seq
        reason, by = str(overrides.reason), str(overrides.by)
        data = {"epoch": epoch, "reason": reason, "overrides": list(overrides.gates)}

        async def declared() -> list[NewEvent]:
            return [NewEvent(DECLARED, region, by, data)]

        await append_after(store, declared, doing=f"declaring {region} lost")
        if led:
            return (await follow(store, before, shown.watcher(), deadline=_FOLLOW_SECONDS)).run
    # Nobody leads: whoever declares it carries it out.
    return await launch(
        playbook,
        {"from": region, "to": playbook.other_region(region)},
        by=by,
        overrides=overrides,
        context={"trigger": {"kind": "disaster-declared", "by": by, "reason": reason}},
        watcher=shown.watcher(),
    )


@click.command()
@click.argument("region")
@click.option("--reason", required=True, help="Why, for the record.")
@by_option
@playbook_option
def veto(region: str, reason: str, by: str, playbook_path: Path | None) -> None:
    """Stop a failover away from REGION that is proposed, and any automatic one while it keeps its epoch."""
    run_async(_veto(playbook_path, region, reason, by))
    click.echo(
        f"Nothing leaves {region} by itself now. `hmsdr failover` and `hmsdr declare disaster` still do"
    )


async def _veto(path: Path | None, region: str, reason: str, by: str) -> None:
    async with opened(path) as (playbook, store):
        doing = f"stopping a failover away from {region}"
        epoch = await _epoch_of(playbook, store, region, doing)

        async def vetoed() -> list[NewEvent]:
            return [NewEvent(VETOED, region, by, {"epoch": epoch, "reason": reason})]

        await append_after(store, vetoed, doing=doing)


async def _epoch_of(playbook: Playbook, store: Store, region: str, doing: str) -> int:
    """The epoch under which `region` holds the right to write.

    Raises:
        RefusedError: no such region, or it holds nothing.
    """
    if region not in playbook.regions:
        known = f"Known: {', '.join(playbook.regions)}"
        raise RefusedError(
            doing, "the playbook has no such region", nearest(region, playbook.regions) or known
        )
    record = await store.read_authority()
    instance = playbook.regions[region].postgres.instance
    if record.holder is None or record.holder.instance != instance or record.phase is not Phase.HELD:
        holder = record.holder.instance if record.holder is not None else "nobody"
        other = playbook.other_region(region)
        # The database may have gone there alone: users follow it by the same command, without a new epoch.
        gone = record.phase is Phase.HELD and holder == playbook.regions[other].postgres.instance
        raise RefusedError(
            doing,
            f"it does not hold the right to write (epoch {record.epoch}, {record.phase}, {holder})",
            f"If users are still sent to {region}, `hmsdr failover {region} {other}` moves them after their database"
            if gone
            else "`hmsdr authority show`, `hmsdr run list`: somebody may be failing over already",
        )
    return record.epoch
