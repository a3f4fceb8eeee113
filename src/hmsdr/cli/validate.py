"""`hmsdr validate`: is this playbook fit for use, and if not, what to mend where. Changes nothing."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import click

from hmsdr.check.playbook import Checked, load_checked
from hmsdr.errors import ExitStatus, RefusedError
from hmsdr.playbook.base import format_duration
from hmsdr.playbook.document import read_document
from hmsdr.playbook.findings import Finding, PlaybookError
from hmsdr.playbook.schema import schema_text


@click.command
@click.argument("file", required=False, metavar="FILE")
@click.option("--overlay", type=click.Path(path_type=Path), help="A file to lay over FILE.")
@click.option("--no-secrets", is_flag=True, help="Do not look for secrets: check everything but them.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema for editors, and check nothing.")
def validate(file: str | None, overlay: Path | None, no_secrets: bool, as_json: bool, schema: bool) -> None:
    """Check a playbook: FILE, or hms for the shipped one.

    Exit status 0 when it is valid, 2 when it is not.
    """
    if schema:
        click.echo(schema_text(), nl=False)
        return
    if file is None:
        message = "Missing argument 'FILE'. Name a playbook, or hms for the shipped one."
        raise click.UsageError(message)
    _refuse_runbook(file)
    try:
        checked = load_checked(file, overlay=overlay, secrets=not no_secrets)
    except PlaybookError as error:
        _refused(error, as_json=as_json)
        raise SystemExit(int(ExitStatus.REFUSED)) from None
    if as_json:
        click.echo(_json(checked.file, "valid", checked.warnings))
    else:
        click.echo(_summary(checked, secrets=not no_secrets))


command = validate


def _refuse_runbook(file: str) -> None:
    """A runbook is no playbook with many mistakes."""
    with suppress(PlaybookError):
        if Path(file).suffix in {".yaml", ".yml"} and "runbook" in read_document(Path(file)).entries():
            raise RefusedError(
                f"reading the playbook {file}",
                "it is a runbook",
                f"Check it with `hmsdr runbook check {file}`",
            )


def _refused(error: PlaybookError, *, as_json: bool) -> None:
    if as_json:
        click.echo(_json(error.file, "invalid", error.findings))
    else:
        click.echo(_printable(str(error)), err=True)


def _json(file: Path, result: str, findings: tuple[Finding, ...]) -> str:
    content = {"file": str(file), "result": result, "findings": [finding.as_json() for finding in findings]}
    return json.dumps(content, indent=2)


def _summary(checked: Checked, *, secrets: bool) -> str:
    book = checked.playbook
    triggers, gates, targets = book.thresholds.triggers, book.thresholds.gates, book.thresholds.targets
    critical = [name for name, service in book.services.items() if service.critical]
    overlay = f", with the overlay {book.overlay}" if book.overlay else ""
    regions = f"{book.home_region} (home), {book.other_region(book.home_region)}; witness {book.witness.name}"
    unreachable = format_duration(triggers.region_unreachable)
    unavailable = format_duration(triggers.critical_services_unavailable)
    lag, backup = format_duration(gates.replication_lag), format_duration(gates.backup_age)
    rto, rpo, lease = map(format_duration, (targets.rto, targets.rpo, book.database.lease))
    lines = [
        *(str(finding) for finding in checked.warnings),
        f"{checked.file}: valid ({book.name}{overlay})",
        f"  regions     {regions}",
        f"  services    {', '.join(book.services)}; critical: {', '.join(critical)}",
        f"  traffic     {book.traffic.public_url}, ttl {book.traffic.ttl}s",
        f"  triggers    region unreachable {unreachable}, critical services unavailable {unavailable}",
        f"  gates       replication lag {lag}, backups {backup}",
        f"  targets     RTO {rto}, RPO {rpo}; lease {lease}",
        f"  people      {len(book.people)} in {len(book.roles)} roles",
    ]
    if not secrets:
        lines.append("  secrets     not checked (--no-secrets)")
    return _printable("\n".join(lines))


def _printable(text: str) -> str:
    """Text that any terminal takes: an odd file name must not end in a traceback."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
