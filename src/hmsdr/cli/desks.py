"""What the commands of ``hmsdr incident`` share: the desk over the store that is meant. A face only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click

from hmsdr.cli.common import opened
from hmsdr.incident.desk import Desk
from hmsdr.incident.snapshot import beside
from hmsdr.log.store import Store
from hmsdr.playbook.model import Playbook

json_option = click.option("--json", "as_json", is_flag=True, help="For machines.")


@asynccontextmanager
async def desk_of(path: Path | None) -> AsyncIterator[tuple[Playbook, Store, Desk]]:
    """The playbook, its store and the desk over it."""
    async with opened(path) as (playbook, store):
        yield playbook, store, Desk(playbook, store, beside(playbook.store.path))
