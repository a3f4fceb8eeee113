"""What the commands of ``hmsdr backup`` share: options, the region and the target that are meant, drivers. Faces only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hmsdr.cli.common import find_playbook
from hmsdr.decide.lsn import parse_lsn
from hmsdr.errors import FailedError, RefusedError
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook

if TYPE_CHECKING:
    from hmsdr.backup.fetch import Target
    from hmsdr.control.server import PostgresServer
    from hmsdr.drivers.s3 import ObjectStore

_SQL_SECONDS = 5.0


def region_option(command: Any) -> Any:
    """``--region``: of the primary, unless it is named."""
    return click.option("--region", help="Whose database; default: the region with the primary.")(command)


def here_option(command: Any) -> Any:
    """``--region``: of what is restored on this machine."""
    return click.option(
        "--region",
        envvar="HMSDR_REGION",
        show_envvar=True,
        help="The region that is restored, on this machine; default: the home region.",
    )(command)


def programs_options(command: Any) -> Any:
    """``--postgres-bin`` and ``--run-as``."""
    command = click.option(
        "--postgres-bin", type=click.Path(path_type=Path), help="Directory with PostgreSQL's programs."
    )(command)
    return click.option("--run-as", help="User for PostgreSQL, as of `hmsdr agent`.")(command)


def target_options(command: Any) -> Any:
    """``--target-time`` and ``--target-lsn``."""
    command = click.option("--target-time", help="Up to this moment: 2026-11-25T02:15:00Z.")(command)
    return click.option("--target-lsn", help="Up to this LSN: 0/3000148.")(command)


def the_playbook(path: Path | None) -> Playbook:
    """The playbook that is meant."""
    return load(find_playbook(path))


def refuse_region(playbook: Playbook, region: str) -> None:
    """See that the playbook has the region.

    Raises:
        RefusedError: it has not.
    """
    if region not in playbook.regions:
        known = f"Known: {', '.join(playbook.regions)}"
        raise RefusedError(
            f"looking for the region {region!r}", "there is none", nearest(region, playbook.regions) or known
        )


async def the_region(playbook: Playbook, region: str | None, *, known: bool = False) -> str:
    """The region that is meant: the one that was named, or whose database is the primary; `known`: any will do."""
    from hmsdr.drivers.postgres import Postgres  # noqa: PLC0415

    if region is not None:
        refuse_region(playbook, region)
        return region
    names = list(playbook.regions)
    found = await asyncio.gather(
        *(Postgres(playbook.regions[name].postgres).status(deadline=_SQL_SECONDS) for name in names),
        return_exceptions=True,
    )
    for name, status in zip(names, found, strict=True):
        if not isinstance(status, BaseException) and status.reachable and status.in_recovery is False:
            return name
    if known:
        return playbook.home_region
    raise FailedError(
        "looking for the primary", "no region's database answers as one", "Name the region with --region"
    )


async def standby_of(playbook: Playbook, region: str | None) -> bool:
    """Whether the database of `region` says that it is a standby; silence is no such word."""
    from hmsdr.drivers.postgres import Postgres  # noqa: PLC0415

    if region is None:
        raise RefusedError("looking whether the database is a standby", "no region is named", "Use --region")
    refuse_region(playbook, region)
    status = await Postgres(playbook.regions[region].postgres).status(deadline=_SQL_SECONDS)
    return status.reachable and status.in_recovery is True


def the_target(time: str | None, lsn: str | None) -> Target:
    """The point in time that is meant.

    Raises:
        RefusedError: it is none.
    """
    from hmsdr.backup.fetch import Target  # noqa: PLC0415

    doing = "reading the target"
    if time is not None and lsn is not None:
        raise RefusedError(doing, "both a time and an LSN", "Name one of them")
    try:
        if lsn is not None:
            return Target(lsn=parse_lsn(lsn))
        if time is not None:
            moment = datetime.fromisoformat(time)
            if moment.tzinfo is None:
                raise RefusedError(doing, f"{time!r} names no time zone", "Write it as 2026-11-25T02:15:00Z")
            if moment > datetime.now(UTC):
                raise RefusedError(doing, f"{time} is in the future", "Name a moment that has been")
            return Target(time=moment.astimezone(UTC))
    except ValueError as error:
        raise RefusedError(
            doing, str(error), "A time looks like 2026-11-25T02:15:00Z, an LSN like 0/3000148"
        ) from error
    return Target()


def the_server(data: Path, postgres_bin: Path | None, run_as: str | None) -> PostgresServer:
    """PostgreSQL's programs here, for the data directory `data`."""
    from hmsdr.control import programs  # noqa: PLC0415
    from hmsdr.control.server import PostgresServer  # noqa: PLC0415
    from hmsdr.control.unprivileged import choose  # noqa: PLC0415

    return PostgresServer(data, postgres_bin or programs.postgres_bin(), choose(run_as), Path("/dev/null"))


@asynccontextmanager
async def the_objects(playbook: Playbook) -> AsyncIterator[ObjectStore]:
    """The object store, while it is needed."""
    from hmsdr.drivers.s3 import ObjectStore  # noqa: PLC0415

    objects = ObjectStore(playbook.aws)
    try:
        yield objects
    finally:
        await objects.close()


def saying(*, quiet: bool) -> Callable[[str], None]:
    """Tells progress on standard error, unless `quiet`."""
    return lambda words: None if quiet else click.echo(f"  {words} …", err=True)
