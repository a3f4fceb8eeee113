"""`python -m hmsdr.lab.kube --lab DIR --region R`: one region's Kubernetes. It only reads the command line."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import click

from hmsdr.lab.kube.server import serve
from hmsdr.lab.layout import Layout


@click.command()
@click.option(
    "--lab", type=click.Path(path_type=Path, exists=True), required=True, help="The lab's directory."
)
@click.option("--region", required=True, help="A region of the lab.")
@click.option("--empty", is_flag=True, help="First start without the hospital's objects.")
def main(lab: Path, region: str, *, empty: bool) -> None:
    """Serve one region's Kubernetes until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    layout = Layout.load(lab)
    if region not in layout.regions:
        raise click.BadParameter(f"no region {region} in this lab", param_hint="--region")
    asyncio.run(serve(layout, layout.regions[region], empty=empty))


if __name__ == "__main__":
    main()
