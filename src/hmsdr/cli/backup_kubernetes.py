"""``hmsdr backup restore-kubernetes``, and the cluster's part of ``hmsdr backup run``. A face only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hmsdr.cli.common import find_playbook, playbook_option, run_async
from hmsdr.errors import RefusedError
from hmsdr.playbook.findings import nearest
from hmsdr.playbook.load import load
from hmsdr.playbook.model import Playbook

if TYPE_CHECKING:
    from hmsdr.backup.cluster import Kept

_IDENTITY_LIMIT = 64 * 1024


@click.command("restore-kubernetes")
@click.argument("file")
@click.option(
    "--region",
    envvar="HMSDR_REGION",
    show_envvar=True,
    help="The region whose cluster is restored; default: the home region.",
)
@click.option(
    "--replace", is_flag=True, help="Also put the archive's objects in the place of different ones."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option(
    "--identity",
    "identity_file",
    type=click.Path(path_type=Path),
    help="File with the private key (age) for secrets; default: the playbook's.",
)
@playbook_option
def restore_kubernetes(
    playbook_path: Path | None,
    file: str,
    region: str | None,
    replace: bool,
    dry_run: bool,
    identity_file: Path | None,
) -> None:
    """Restore a cluster's objects from FILE, here or in a bucket, in the order in which they need one another.

    What is there and the same is left alone; what is there and different is left alone, too, and named, unless --replace.
    """
    playbook = load(find_playbook(playbook_path))
    where = region or playbook.home_region
    if where not in playbook.regions:
        known = f"Known: {', '.join(playbook.regions)}"
        raise RefusedError(
            f"looking for the region {where!r}", "there is none", nearest(where, playbook.regions) or known
        )
    run_async(_restore(playbook, where, file, _identity(identity_file), replace=replace, dry_run=dry_run))


def _identity(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        if file.stat().st_size > _IDENTITY_LIMIT:
            raise RefusedError(f"reading {file}", "it is too large for a key", "Name the file with the key")
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"reading {file}", str(error), "Name the file with the key") from error


async def _restore(
    playbook: Playbook, region: str, file: str, identity: str | None, *, replace: bool, dry_run: bool
) -> None:
    from hmsdr.backup.cluster import Cluster  # noqa: PLC0415 - imported when it is used
    from hmsdr.drivers.kubernetes import Kubernetes  # noqa: PLC0415
    from hmsdr.drivers.s3 import ObjectStore  # noqa: PLC0415

    settings = playbook.regions[region].kubernetes
    objects, api = ObjectStore(playbook.aws), Kubernetes(
        settings.context, settings.kubeconfig, settings.namespace
    )  # fmt: skip
    try:
        cluster = Cluster(playbook, region, objects, api, lambda words: click.echo(f"  {words}", err=True))
        contents = cluster.contents(await cluster.fetch(file), file, identity)
        click.echo(
            f"{file}: {len(contents.objects)} objects of {contents.region}, {contents.made:%Y-%m-%d %H:%M} UTC"
        )
        if contents.region != region:
            click.echo(f"They are of another region than {region}: look at what names it.")
        steps, same = await cluster.plan(contents)
        if dry_run:
            for step in steps:
                click.echo(
                    f"  {'replace' if step.over else 'create'} {step.file} {', '.join(step.places[:3])}"
                )
            click.echo(f"{same} are there and the same. Nothing was changed.")
            return
        done = await cluster.restore(steps, same=same, replace=replace)
        click.echo(f"{len(done.created)} created, {len(done.replaced)} replaced, {done.same} were the same")
        click.echo(f"Look at them: kubectl get pods -n {cluster.namespaces[0]} --context={settings.context}")
    finally:
        await api.aclose()
        await objects.close()


async def keep(playbook: Playbook, region: str, say: Callable[[str], None]) -> Kept:
    """Archive the cluster's objects of `region`."""
    from hmsdr.backup.cluster import Cluster, today  # noqa: PLC0415
    from hmsdr.drivers.kubernetes import Kubernetes  # noqa: PLC0415
    from hmsdr.drivers.s3 import ObjectStore  # noqa: PLC0415

    settings = playbook.regions[region].kubernetes
    objects = ObjectStore(playbook.aws)
    api = Kubernetes(settings.context, settings.kubeconfig, settings.namespace)
    try:
        return await Cluster(playbook, region, objects, api, say).keep(today())
    finally:
        await api.aclose()
        await objects.close()
