"""The source playbook's own command lines, with one lab's real hosts in them, ready to paste. Writes text only."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from hmsdr.control import programs
from hmsdr.lab.layout import NAMESPACE, PROMETHEUS_NAME, PUBLIC_NAME, ZONE, Endpoint, Layout, RegionLayout

_REPLICATION = "SELECT * FROM pg_stat_replication;"
_COUNT = "SELECT COUNT(*) FROM patients;"
_RATE = "'query=rate(http_requests_total[5m])'"
_POSTGRES, _REDIS, _HTTPS = 5432, 6379, 443


def source_lines(layout: Layout) -> list[str]:
    """Lines for psql, redis-cli, kubectl, curl and aws; every one works while the lab is up."""
    lines = [f"export KUBECONFIG={shlex.quote(str(layout.kubeconfig))}"]
    if any(shutil.which(name) is None for name in ("psql", "kubectl", "aws")):
        ours = f"{programs.postgres_bin()}:{Path(sys.prefix) / 'bin'}"
        lines.append(f"export PATH={shlex.quote(ours)}:$PATH")
    for region in layout.regions.values():
        lines += [
            f"kubectl get nodes --context={region.name}",
            f"kubectl get pods --all-namespaces --context={region.name}",
            f'{_psql(region)} -c "{_REPLICATION}"',
            f"{_redis(region)} INFO replication",
        ]
    home, other = layout.regions.values()
    lines += [
        f'{_psql(home)} -c "{_COUNT}"',
        f"kubectl exec -it postgres-{home.ordinal_name}-0 -n {NAMESPACE} --context={home.name} -- "
        f'psql -U postgres -c "{_REPLICATION}"',
        _curl(layout, home.ingress_https, PUBLIC_NAME, "/patient-service/health"),
        *(
            _curl(layout, region.ingress_https, f"api-{region.ordinal_name}.{ZONE}", "/health")
            for region in (home, other)
        ),
        _curl(layout, layout.prometheus, PROMETHEUS_NAME, f"/api/v1/query -G --data-urlencode {_RATE}"),
        "AWS_ACCESS_KEY_ID=lab AWS_SECRET_ACCESS_KEY=lab "
        f"aws --endpoint-url http://{layout.aws} s3 ls s3://hms-backups-{home.name}/databases/ --region {home.name}",
    ]
    return lines


def _psql(region: RegionLayout) -> str:
    port = "" if region.postgres.port == _POSTGRES else f" -p {region.postgres.port}"
    return f"psql -h {region.postgres.host}{port} -U postgres"


def _redis(region: RegionLayout) -> str:
    port = "" if region.redis.port == _REDIS else f" -p {region.redis.port}"
    return f"redis-cli -h {region.redis.host}{port}"


def _curl(layout: Layout, where: Endpoint, name: str, path: str) -> str:
    port = "" if where.port == _HTTPS else f":{where.port}"
    certificate = shlex.quote(str(layout.ca_file))
    return f"curl -f --cacert {certificate} --resolve {name}:{where.port}:{where.host} https://{name}{port}{path}"
