"""``python -m hmsdr.control.manual stop|promote``: what `pg_ctl` says, done through the agent (SAFETY rule 5).

Stands in for pg_ctl where people type it into a database's pod. It only carries the order; the agent refuses.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from hmsdr.drivers.agent import AgentClient
from hmsdr.errors import ExitStatus, HmsdrError, RefusedError
from hmsdr.playbook.load import load

_STOP_SECONDS = 60.0
_PROMOTE_SECONDS = 300.0


@click.command()
@click.argument("order", type=click.Choice(["stop", "promote"]))
@click.option("--playbook", type=click.Path(path_type=Path), required=True, help="Playbook file.")
@click.option("--region", required=True, help="Region whose database is meant.")
def manual(order: str, playbook: Path, region: str) -> None:
    """Stop or promote a region's database by hand, through its agent."""
    known = load(playbook)
    if region not in known.regions:
        raise RefusedError(f"{order} in {region!r}", "no such region", f"Known: {', '.join(known.regions)}")
    asyncio.run(_order(order, AgentClient(known.regions[region].agent)))


async def _order(order: str, agent: AgentClient) -> None:
    try:
        if order == "stop":
            click.echo("waiting for server to shut down....", nl=False)
            await agent.manual_stop(deadline=_STOP_SECONDS)
            click.echo(" done\nserver stopped")
        else:
            click.echo("waiting for server to promote....", nl=False)
            await agent.manual_promote(deadline=_PROMOTE_SECONDS)
            click.echo(" done\nserver promoted")
    except HmsdrError:
        click.echo(" stopped waiting")
        raise
    finally:
        await agent.close()


def main() -> int:
    """Run it; exit 0 done, 1 failed, 2 refused. Never a traceback."""
    try:
        manual.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return int(ExitStatus.REFUSED)
    except HmsdrError as error:
        click.echo(f"pg_ctl: {error}", err=True)
        return int(error.status)
    return int(ExitStatus.DONE)


if __name__ == "__main__":
    sys.exit(main())
