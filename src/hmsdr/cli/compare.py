"""``hmsdr compare``: are the data of both regions equal (RC-3)? A face over runbook/comparing; what came of it goes into the log."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from hmsdr.cli.common import interruptible, json_option, opened, playbook_option, run_async
from hmsdr.decide.lsn import format_lsn
from hmsdr.errors import ExitStatus
from hmsdr.runbook.comparing import MIB, Compared, Progress
from hmsdr.runbook.equal_data import compare_regions
from hmsdr.runbook.systems import Systems

_SAY_EVERY_SECONDS = 1.0


@click.command()
@click.option(
    "--rate", type=click.IntRange(min=1), help="MiB a second read of the primary; the playbook's otherwise."
)
@click.option("--jobs", type=click.IntRange(1, 16), help="Chunks at a time; the playbook's otherwise.")
@json_option
@playbook_option
@click.pass_context
def compare(
    context: click.Context, rate: int | None, jobs: int | None, as_json: bool, playbook_path: Path | None
) -> None:
    """Compare the data of both regions, table by table, at one moment; nothing is changed but a line in the log.

    Exit status 0 when all is equal, 1 when something is not (it is named), or when it could not be compared.
    """
    with interruptible("comparing", "Nothing was changed and nothing is known; `hmsdr compare` begins anew"):
        found = run_async(_compare(playbook_path, rate, jobs, as_json=as_json))
    click.echo(json.dumps(_summary(found)) if as_json else "\n".join(_lines(found)))
    if not found.equal:
        context.exit(ExitStatus.FAILED)


async def _compare(path: Path | None, rate: int | None, jobs: int | None, *, as_json: bool) -> Compared:
    async with opened(path) as (playbook, store):
        systems = Systems(playbook, store)
        try:
            return await compare_regions(
                systems,
                store,
                by="hmsdr compare",
                rate=None if rate is None else rate * MIB,
                jobs=jobs,
                say=_Said(as_json=as_json),
            )
        finally:
            await systems.close()


class _Said:
    """Progress on standard error, once a second."""

    def __init__(self, *, as_json: bool) -> None:
        self._quiet = as_json
        self._said = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._quiet or now - self._said < _SAY_EVERY_SECONDS:
            return
        self._said = now
        share = 100 * progress.bytes // max(1, progress.of_bytes)
        line = f"  {share:3} % of {progress.of_bytes // MIB} MiB, at {format_lsn(progress.lsn)}: {progress.table}"
        click.echo(line, file=sys.stderr)


def _summary(found: Compared) -> dict[str, object]:
    return {
        "equal": found.equal,
        "lsns": [format_lsn(each) for each in found.lsns],
        "seconds": round(found.seconds, 3),
        "bytes": found.bytes,
        "tables": {name: {"rows": each.rows, "sum": each.sum} for name, each in found.sums.items()},
        "differences": [
            {
                "table": each.table,
                "pages": each.pages,
                "rows": [{"kind": row.kind, "key": row.key} for row in each.rows],
                "more": each.more,
                "found": each.found,
            }
            for each in found.differences
        ],
    }


def _lines(found: Compared) -> list[str]:
    rows = sum(each.rows for each in found.sums.values())
    moments = f"at {format_lsn(found.lsns[0])}"
    if len(found.lsns) > 1:
        moments = (
            f"at {len(found.lsns)} moments from {format_lsn(found.lsns[0])} to {format_lsn(found.lsns[-1])}"
        )
    size = f"{len(found.sums)} tables, {rows} rows, {found.bytes / MIB:.1f} MiB in {found.seconds:.1f} s, {moments}"
    if found.equal:
        return [f"Equal: {size}"]
    lines = [f"{click.style('NOT equal', fg='red')}: {size}"]
    lines += [f"  ✗ {each.words()}" for each in found.differences]
    return [*lines, "Do not switch to the standby. docs/switchback.md, 'Not equal', says what to do."]
