"""``hmsdr lab``: a two-region hospital on this machine, with real servers. A face over `hmsdr.lab`."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import click

from hmsdr.cli.common import (
    DEFAULT_LAB,
    LAB_ENV,
    interruptible,
    json_option,
    lab_directory,
    run_async,
    undisturbed,
)
from hmsdr.cli.lab_view import UpView, left_lines, message_lines, status_lines
from hmsdr.errors import ExitStatus, FailedError, RefusedError
from hmsdr.lab import control, faults, shell
from hmsdr.lab.channels.kept import received
from hmsdr.lab.launch import remains
from hmsdr.lab.layout import Layout
from hmsdr.lab.report import inspect

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=lab_directory,
    help=f"The lab's directory. Default: ${LAB_ENV} or {DEFAULT_LAB}.",
)


@click.group()
def lab() -> None:
    """A two-region hospital on this machine, with real servers."""


@lab.command()
@directory_option
@click.option("--address", help="First of three /24 networks, such as 127.77.0.0; default: free ones.")
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="NAME=N",
    help="A port; default: the standard one, or a free one.",
)
@click.option("--keep", is_flag=True, help="When it does not come up, leave its directory, with the logs.")
@click.option(
    "--ha", is_flag=True, help="With etcd and a controller at three sites: it fails over by itself."
)
def up(directory: Path, address: str | None, ports: tuple[str, ...], keep: bool, ha: bool) -> None:
    """Bring the lab up; return when both regions are ready. Interrupted, it leaves nothing."""
    began = time.monotonic()
    chosen = _ports(ports)

    view = UpView()

    async def work() -> Layout:
        control.interrupt_on_signals()
        with view:
            return await control.up(
                directory, progress=view.progress, address=address, ports=chosen, keep_failed=keep, ha=ha
            )

    try:
        layout = run_async(work())
    except (asyncio.CancelledError, KeyboardInterrupt):
        with undisturbed():
            left = remains(directory.absolute())
        raise FailedError(
            f"bringing the lab up in {directory}",
            "it was interrupted",
            left_lines(left, directory, begun=view.begun),
        ) from None
    home = next(iter(layout.regions.values()))
    click.echo(
        f"Lab up in {time.monotonic() - began:.1f} s in {layout.directory}, networks from {home.pod_network}.0"
    )
    click.echo("`hmsdr lab status` shows it, with lines to paste; `hmsdr lab down` ends it.")


@lab.command()
@directory_option
@json_option
@click.pass_context
def status(context: click.Context, directory: Path, as_json: bool) -> None:
    """What runs, who may write, what is broken, and the playbook's lines with this lab's hosts.

    Exit status 0 when all works, 1 when a part does not, 2 when there is no lab.
    """
    layout = control.existing(directory)
    with interruptible(f"looking at the lab in {directory}", "Nothing was changed"):
        found = run_async(inspect(layout))
    if not found.processes:
        raise RefusedError(
            f"looking for a lab in {directory}", "none is up there", "Start one with `hmsdr lab up`"
        )
    click.echo(json.dumps(found.as_json(), indent=2) if as_json else "\n".join(status_lines(found, layout)))
    if not found.whole:
        context.exit(ExitStatus.FAILED)


@lab.command()
@directory_option
@json_option
def messages(directory: Path, as_json: bool) -> None:
    """What arrived in the lab's chat channels and mailboxes: when, where, for whom."""
    found = received(control.existing(directory))
    click.echo(
        json.dumps(found, indent=2, ensure_ascii=False) if as_json else "\n".join(message_lines(found))
    )


@lab.command("break")
@click.argument("fault")
@click.option("--region", help="Where; default: the home region.")
@click.option("--service", help="Which service, for service-killed.")
@click.option("--hold", is_flag=True, help="Until `heal`, nothing starts it again.")
@directory_option
@json_option
def break_command(
    fault: str,
    region: str | None,
    service: str | None,
    hold: bool,
    directory: Path,
    as_json: bool,
) -> None:
    """Let FAULT happen: region-down, database-killed, redis-killed or service-killed."""
    layout = control.existing(directory)
    faults.check(layout, fault, region or next(iter(layout.regions)), service)
    remedy = "It may have happened: `hmsdr lab status` shows it, `hmsdr lab heal` mends it"
    with interruptible(f"letting {fault} happen", remedy):
        done = run_async(control.break_(layout, fault, region=region, service=service, hold=hold))
    if as_json:
        click.echo(json.dumps({"region": done.region, "at": done.wall, "killed": done.count}))
    else:
        click.echo(f"{fault} in {done.region}: {done.count} processes killed ({done.what})")


@lab.command()
@directory_option
def heal(directory: Path) -> None:
    """Start again what was broken. A database that lost the right to write never comes back writable."""
    remedy = "The lab goes on healing by itself: `hmsdr lab status` shows what works, `hmsdr lab heal` waits for the rest"
    with interruptible(f"healing the lab in {directory}", remedy):
        found = run_async(control.heal(control.existing(directory)))
    click.echo("\n".join(f"{name:<12} {text}" for name, text in found.items()))


@lab.command("shell", context_settings={"ignore_unknown_options": True})
@directory_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def shell_command(directory: Path, command: tuple[str, ...]) -> None:
    """A shell (or COMMAND, after --) in which the lab's names, certificates and contexts work."""
    layout = control.existing(directory)
    if unusual := shell.unusual_ports(layout):
        shown = ", ".join(f"{name} on {port}" for name, port in unusual.items())
        click.echo(f"Not on their standard ports: {shown}; add them to the lines.", err=True)
    if not shell.follows_dns(layout):
        click.echo(
            "The lab's DNS is not on port 53: names are fixed, and do not follow a failover.", err=True
        )
    shell.enter(layout, command)


@lab.command()
@directory_option
@click.option("--keep", is_flag=True, help="Leave the directory, with the logs; the next `up` clears it.")
def down(directory: Path, keep: bool) -> None:
    """Stop everything and remove the lab's directory."""
    began = time.monotonic()
    layout = control.existing(directory)
    try:
        run_async(control.down(layout, keep=keep))
    except (asyncio.CancelledError, KeyboardInterrupt):
        with undisturbed():
            found, remedy = _half_down(layout)
        raise FailedError(f"taking down the lab in {directory}", found, remedy) from None
    what = f"logs are in {layout.directory}" if keep else "directory removed"
    click.echo(f"Lab down in {time.monotonic() - began:.1f} s; {what}")


def _half_down(layout: Layout) -> tuple[str, str]:
    """What is true of a lab whose taking down was interrupted, and what to do."""
    status = run_async(control.supervisor_status(layout))
    if status is not None and status["up"]:
        return "it was interrupted before it began: the lab is up as before", "`hmsdr lab down` takes it down"
    if status is not None:
        return (
            "this command was interrupted, the lab goes on ending by itself",
            "`hmsdr lab down` waits until it is gone; `hmsdr lab status` looks",
        )
    return "it was interrupted near its end, some of it may be left", "`hmsdr lab down` again removes that"


def _ports(texts: tuple[str, ...]) -> dict[str, int]:
    ports = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not (number.isascii() and number.isdecimal() and 0 < int(number) < 65536):  # noqa: PLR2004 - ports
            raise RefusedError(
                f"reading --port {text}",
                "it is not NAME=N with N from 1 to 65535",
                "As in --port postgres=15432",
            )
        ports[name] = int(number)
    return ports
