"""``hmsdr lab``: two regions on this machine, with real servers. A face over `hmsdr.lab`."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import click

from hmsdr.cli.common import run_async
from hmsdr.errors import ExitStatus, FailedError, RefusedError
from hmsdr.lab import machine
from hmsdr.lab.faults import FAULTS, break_
from hmsdr.lab.layout import Layout
from hmsdr.lab.report import Status, inspect

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=machine.working_directory,
    help="The lab's directory. Default: $HMSDR_LAB or .hmsdr/lab.",
)


@click.group()
def lab() -> None:
    """Two regions on this machine, with real servers."""


@lab.command()
@directory_option
@click.option(
    "--address", help="First of three /24 networks, such as 127.77.0.0; default: free ones are found."
)
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="NAME=N",
    help="A port to use; default: standard, or the next free.",
)
def up(directory: Path, address: str | None, ports: tuple[str, ...]) -> None:
    """Bring the lab up; return when both regions are ready."""
    began = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"  {time.monotonic() - began:5.1f} s  {text}", err=True)

    layout = run_async(_up(directory, say, address, _ports(ports)))
    click.echo(f"Lab up in {time.monotonic() - began:.1f} s: {layout.directory}")
    click.echo(
        "`hmsdr lab status` shows it; `hmsdr plan failover us-east-1 us-west-2` shows what a failover would do."
    )


async def _up(directory: Path, say: machine.Say, address: str | None, ports: dict[str, int]) -> Layout:
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await machine.up(directory, say, address=address, ports=ports)
    except asyncio.CancelledError:
        raise FailedError(
            "bringing the lab up", "it was interrupted", "Nothing is left running; try again"
        ) from None


def _ports(texts: tuple[str, ...]) -> dict[str, int]:
    ports = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not number.isdecimal():
            raise RefusedError(
                f"reading --port {text}", "it is not NAME=N", "For example: --port postgres=15432"
            )
        ports[name] = int(number)
    return ports


@lab.command()
@directory_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def status(context: click.Context, directory: Path, as_json: bool) -> None:
    """What runs, who may write, and the lines to copy."""
    found = run_async(inspect(machine.existing(directory)))
    click.echo(json.dumps(found.as_json(), indent=2) if as_json else "\n".join(_lines(found)))
    if not found.whole:
        context.exit(ExitStatus.FAILED)


def _lines(found: Status) -> list[str]:
    lines = [f"Lab {found.directory}: {'up' if found.whole else 'up, but broken'}", "", "Regions"]
    lines += [f"  {name:<12} {text}" for name, text in found.regions.items()]
    lines += ["", f"Right to write: {found.authority}", f"Public record:  {found.record}", "", "Processes"]
    lines += [
        f"  {item['pid']:>7}  {item['region'] or 'shared':<10} {item['memory_mb']:>5} MB  {item['command']}"
        for item in found.processes
    ]
    return [*lines, "", "Lines to copy", *(f"  {line}" for line in found.commands)]


@lab.command("break")
@click.argument("fault")
@click.option("--region", default="us-east-1", show_default=True)
@directory_option
def break_command(fault: str, region: str, directory: Path) -> None:
    """Let FAULT happen: region-down, database-killed or redis-killed."""
    killed = break_(machine.existing(directory), fault, region)
    click.echo(f"{fault} in {region}: {killed.count} processes killed ({FAULTS[fault]})")
    if killed.survivors:
        raise FailedError(
            f"breaking {region}",
            f"{killed.survivors} processes are still alive",
            "Look at `hmsdr lab status`",
        )


@lab.command()
@directory_option
def heal(directory: Path) -> None:
    """Start again what was broken. A database that lost the right to write comes back fenced, never writable."""
    layout = machine.existing(directory)
    for region in layout.regions:
        machine.start_region(layout, region)
    found = run_async(inspect(layout, patience=15))
    click.echo("\n".join(f"{name:<12} {text}" for name, text in found.regions.items()))


@lab.command()
@directory_option
def down(directory: Path) -> None:
    """Kill every process of the lab and remove its directory."""
    killed = machine.remove(machine.existing(directory))
    if killed.survivors:
        raise FailedError("taking the lab down", f"{killed.survivors} processes are still alive", "Try again")
    click.echo(f"Lab down: {killed.count} processes ended, directory removed")
