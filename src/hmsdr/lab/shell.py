"""A shell in which a lab's names are real: its DNS for /etc/resolv.conf, its authority, kubeconfig and tools.

Only this shell sees them: the files are mounted over in a mount namespace of its own. It changes nothing outside,
and is replaced by the command it was asked for.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hmsdr.errors import RefusedError
from hmsdr.lab import binaries
from hmsdr.lab.layout import CLUSTER_DOMAIN, PUBLIC_NAME, ZONE, Layout
from hmsdr.lab.overlay import WEBHOOKS

_DNS = 53
_PROBE_SECONDS = 5.0
_STANDARD = {"postgres": 5432, "redis": 6379, "ingress_https": 443}
_SCRIPT = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


def enter(layout: Layout, command: Sequence[str]) -> None:
    """Become `command` (default: the user's shell) inside the lab's names; returns never.

    Raises:
        RefusedError: the kernel allows no mount namespace here.
    """
    given = list(command) or [os.environ.get("SHELL", "/bin/sh")]
    over, file = _names(layout)
    prefix = _namespace()
    arguments = [*prefix, "sh", "-c", _SCRIPT, "sh", str(file), over, *given]
    os.execvpe(arguments[0], arguments, variables(layout))  # noqa: S606 - the user's own command


def variables(layout: Layout) -> dict[str, str]:
    """The environment inside: kubeconfig, certificates, playbook, AWS, PATH with PostgreSQL's tools."""
    authority = str(layout.ca_file)
    home = next(iter(layout.regions.values()))
    return {
        **os.environ,
        "PATH": binaries.search_path(),
        "KUBECONFIG": str(layout.kubeconfig),
        "SSL_CERT_FILE": authority,
        "CURL_CA_BUNDLE": authority,
        "REQUESTS_CA_BUNDLE": authority,
        "HMSDR_PLAYBOOK": str(layout.playbook),
        "HMSDR_LAB": str(layout.directory),
        "PGPORT": str(home.postgres.port),
        "AWS_ENDPOINT_URL": f"http://{layout.aws}",
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": "lab",
        "AWS_DEFAULT_REGION": "us-east-1",
        **_secrets(layout),
    }


def _secrets(layout: Layout) -> dict[str, str]:
    """What the runbooks' lines name as variables, under the names of the shipped playbook."""
    keys = {f"HMSDR_AGENT_KEY_{name.upper().replace('-', '_')}": layout.agent_key for name in layout.regions}
    hooks = {
        f"HMSDR_{kind.upper()}_WEBHOOK": layout.directory / "secrets" / f"{kind}-webhook" for kind in WEBHOOKS
    }
    return {name: path.read_text().strip() for name, path in {**keys, **hooks}.items() if path.exists()}


def unusual_ports(layout: Layout) -> dict[str, int]:
    """Ports that are not the standard ones: the source's lines then need them added."""
    home = next(iter(layout.regions.values()))
    found = {name: getattr(home, name).port for name in _STANDARD}
    return {name: port for name, port in found.items() if port != _STANDARD[name]}


def follows_dns(layout: Layout) -> bool:
    """Whether names are asked of the lab's DNS; else they are fixed, as resolv.conf knows port 53 only."""
    return layout.dns.port == _DNS


def _names(layout: Layout) -> tuple[str, Path]:
    """Which file of /etc is covered, and with what."""
    if follows_dns(layout):
        file = layout.directory / "resolv.conf"
        file.write_text(f"# The lab's DNS.\nnameserver {layout.dns.host}\noptions timeout:1 attempts:2\n")
        return "/etc/resolv.conf", file
    home = next(iter(layout.regions.values()))
    lines = ["127.0.0.1 localhost", f"{home.ingress_https.host} {PUBLIC_NAME}"]
    for region in layout.regions.values():
        lines.append(f"{region.ingress_https.host} api-{region.ordinal_name}.{ZONE}")
        for store, endpoint in (("postgres", region.postgres), ("redis", region.redis)):
            lines.append(f"{endpoint.host} {store}-{region.ordinal_name}.{CLUSTER_DOMAIN}")
    file = layout.directory / "hosts"
    file.write_text("\n".join(lines) + "\n")
    return "/etc/hosts", file


def _namespace() -> list[str]:
    """The command that makes the namespace: as root a mount namespace, else a user namespace around it."""
    for prefix in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        try:
            tried = subprocess.run(
                [*prefix, "sh", "-c", "mount --bind /etc/hosts /etc/hosts"],
                capture_output=True,
                timeout=_PROBE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if tried.returncode == 0:
            return [*prefix, "--"]
    raise RefusedError(
        "opening a shell inside the lab",
        "the kernel allows this user neither a mount namespace nor a user namespace",
        "Use the lines that `hmsdr lab status` prints: they need no names",
    )
