"""The ``hmsdr`` command: finds the subcommand, renders errors, sets the exit status. It decides nothing.

Subcommands are imported when they are used, so that the command starts fast at three in the morning.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click

from hmsdr import __version__
from hmsdr.errors import ExitStatus, HmsdrError
from hmsdr.playbook.findings import nearest

COMMANDS = {
    "validate": ("hmsdr.cli.validate:validate", "Check a playbook."),
    "plan": ("hmsdr.cli.failover:plan", "Show what a failover or switchback would do."),
    "failover": ("hmsdr.cli.failover:failover", "Fail over from one region to the other."),
    "switchback": ("hmsdr.cli.switchback:switchback", "Go home to a recovered region, share by share."),
    "declare": ("hmsdr.cli.declare:declare", "Say that a region is lost: leave it at once."),
    "incident": ("hmsdr.cli.incident:incident", "Declare incidents, and see them through."),
    "contacts": ("hmsdr.cli.contacts:contacts", "Who is still reached; cards and sheets with all numbers."),
    "veto": ("hmsdr.cli.declare:veto", "Stop a failover that the controllers propose."),
    "health-check": (
        "hmsdr.cli.health_check:health_check",
        "Are users served, and is the hospital protected?",
    ),
    "runbook": ("hmsdr.cli.runbook:runbook", "Show the shipped runbooks, as a person would do them by hand."),
    "run": ("hmsdr.cli.run:run", "Start, list, show, pause, resume, roll back, approve and abort runs."),
    "authority": ("hmsdr.cli.authority:authority", "Show who may write, and change it by the protocol."),
    "recover": ("hmsdr.cli.recover:recover", "Bring a lost region back as a standby region."),
    "follow": ("hmsdr.cli.follow:follow", "Make a region's database a standby of the one that writes."),
    "reconcile": (
        "hmsdr.cli.reconcile:reconcile",
        "What an old primary committed that the new one never saw.",
    ),
    "compare": ("hmsdr.cli.compare:compare", "Are the data of both regions equal?"),
    "damage": ("hmsdr.cli.damage:damage", "Signs of damage at a region's database, and clearing them."),
    "backup": ("hmsdr.cli.backup:backup", "Make backups, list them, try them out, bring them back."),
    "agent": ("hmsdr.cli.agent:agent", "The agent beside a region's database."),
    "controller": (
        "hmsdr.cli.controller:controller",
        "The controller of a site: watches, votes, fails over.",
    ),
    "drill": ("hmsdr.cli.drill:drill", "Practise a disaster on a lab of its own, and report."),
    "lab": ("hmsdr.cli.lab:lab", "Two regions on this machine, with real servers."),
    "store": ("hmsdr.cli.store:store", "Create the event log and the write authority."),
}
"""Name, where it is, and its line in the help."""


class _Lazy(click.Group):
    """A group that imports a subcommand when it is asked for.

    Attributes:
        entered: a command was found and its code is loaded: it may have begun something.
    """

    entered = False

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            hint = nearest(cmd_name, COMMANDS)
            ctx.fail(f"There is no command {cmd_name!r}. {hint or 'See `hmsdr --help`.'}")
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found = super().resolve_command(ctx, args)
        self.entered = True
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hmsdr")
def cli() -> None:
    """hmsdr: a disaster-recovery playbook that runs."""


assert isinstance(cli, _Lazy)  # noqa: S101 - for the type checker: click does not say it


def main() -> NoReturn:
    """Run the command line; exit 0 done, 1 tried and failed, 2 refused or invalid. Never a traceback."""
    try:
        # A command that says `context.exit(status)` gives the status back here.
        status = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitStatus.REFUSED)
    except (click.Abort, KeyboardInterrupt):
        print(interrupted(entered=cli.entered), file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BaseExceptionGroup as group:
        sys.exit(_report(group))
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not an error, and nothing can be said any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitStatus.DONE)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a user
        sys.exit(_report(error))
    sys.exit(status if isinstance(status, int) else ExitStatus.DONE)


def interrupted(*, entered: bool) -> str:
    """What is true of a command that was interrupted and says nothing itself; `entered`: its code was loaded."""
    if not entered:
        return "Interrupted before anything was begun."
    return "Interrupted. If a run was begun, it is in the log: `hmsdr run list`."


def _report(error: BaseException) -> int:
    """Print the error for people; the exit status it stands for."""
    known = list(_known(error))
    for item in known:
        click.echo(f"hmsdr: {item}", err=True)
    if known:
        return int(max(item.status for item in known))
    path = Path(tempfile.gettempdir()) / f"hmsdr-crash-{os.getpid()}.txt"
    where = ""
    try:
        path.write_text("".join(traceback.format_exception(error)))
        where = f" What happened is in {path}; please report it."
    except OSError:
        pass
    click.echo(f"hmsdr: an error that should not happen: {type(error).__name__}: {error}.{where}", err=True)
    return int(ExitStatus.FAILED)


def _known(error: BaseException) -> Iterator[HmsdrError]:
    if isinstance(error, HmsdrError):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _known(inner)
