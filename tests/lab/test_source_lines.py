"""The source playbook's own lines, as they are written, on a lab: names, contexts and programs mean what they say there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest

from commands import command_environment, hmsdr
from hmsdr.lab.layout import Layout

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
WEST = "--context=us-west-2"


def shell(lab: Layout, line: str, *, status: int = 0) -> str:
    """What `line` prints, typed into `hmsdr lab shell`."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hmsdr",
            "lab",
            "shell",
            "--dir",
            str(lab.directory),
            "--",
            "bash",
            "-c",
            line,
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        stdin=subprocess.DEVNULL,
        env=command_environment(None),
    )
    assert done.returncode == status, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.req("FM-2")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("kubectl get nodes --context=us-west-2", "node-us-west-2   Ready"),
        ("kubectl get pods --all-namespaces --context=us-west-2", "postgres-secondary-0"),
        (
            'psql -h postgres-secondary.hms.system.svc.cluster.local -U postgres -c "SELECT * FROM pg_stat_replication;"',
            "(0 rows)",
        ),
        ("curl -f https://api-secondary.hms.enterprise.com/health", '"region": "us-west-2"'),
        ("timeout 3 kubectl get pods --all-namespaces --context=us-west-2 -w || true", "patient-service-"),
        ("kubectl get deployments --all-namespaces --context=us-west-2", "billing-service"),
        ("curl -f https://api.hms.enterprise.com/patient-service/health", '"status": "ok"'),
        ("curl -f https://api.hms.enterprise.com/appointment-service/health", '"status": "ok"'),
        ("curl -f https://api.hms.enterprise.com/clinical-service/health", '"status": "ok"'),
        ("curl -f https://api-primary.hms.enterprise.com/health", '"region": "us-east-1"'),
        (
            'psql -h postgres-primary.hms.system.svc.cluster.local -U postgres -c "SELECT COUNT(*) FROM patients;"',
            "(1 row)",
        ),
        (
            "kubectl get svc --all-namespaces -o json | "
            "jq '.items[] | select(.spec.type == \"LoadBalancer\") | .metadata.name'",
            '"clinical-service"',
        ),
        ("kubectl get ingress --all-namespaces -o yaml", "path: /billing-service"),
        (
            "for service in patient appointment clinical billing auth; do "
            "curl -f https://api.hms.enterprise.com/${service}-service/health; done",
            '"service": "auth"',
        ),
        (
            "aws s3 ls s3://hms-backups-us-east-1/databases/ --region us-east-1 | sort | tail -1 | awk '{print $4}'",
            ".json",
        ),
        # The source has no quotes here, which no shell takes; the words are its own.
        (
            "curl -gs 'https://prometheus.hms.enterprise.com/api/v1/query?query=rate(http_requests_total[5m])'",
            '"status":"success"',
        ),
    ],
)
def test_what_is_looked_at(lab: Layout, line: str, found: str) -> None:
    if line.startswith("aws ") and shutil.which("aws") is None:
        pytest.skip("aws is not installed here; the lab does not need it")
    assert found in shell(lab, line)


@pytest.mark.req("DB-1", "DB-2", "DB-3", "DB-4", "RD-1", "RD-2", "RD-3", "AP-3")
def test_a_failover_typed_by_hand(module_lab: Layout) -> None:
    """Step by step as in the source, each line with the context it is for; `-it` needs a terminal, so `script` gives one."""
    lab = module_lab

    def typed(line: str) -> str:
        return shell(lab, f"script -qec {line!r} /dev/null")

    stopped = typed(
        "kubectl exec -it postgres-primary-0 -n hms-system -- pg_ctl stop -D /var/lib/postgresql/data"
    )
    assert "server stopped" in stopped
    promoted = typed(
        f"kubectl {WEST} exec -it postgres-secondary-0 -n hms-system -- pg_ctl promote -D /var/lib/postgresql/data"
    )
    assert "server promoted" in promoted
    pointed = shell(
        lab,
        f"kubectl {WEST} set env deployment/* --all -n hms-system "
        "DATABASE_HOST=postgres-secondary.hms.system.svc.cluster.local",
    )
    assert "env updated" in pointed
    rows = typed(
        f"kubectl {WEST} exec -it postgres-secondary-0 -n hms-system -- "
        'psql -U postgres -c "SELECT pg_is_in_recovery();"'
    )
    assert " f" in rows
    assert "OK" in typed(
        f"kubectl {WEST} exec -it redis-secondary-0 -n hms-system -- redis-cli SLAVEOF NO ONE"
    )
    shell(
        lab,
        f"kubectl {WEST} set env deployment/* --all -n hms-system "
        "REDIS_HOST=redis-secondary.hms.system.svc.cluster.local",
    )
    told = typed(f"kubectl {WEST} exec -it redis-secondary-0 -n hms-system -- redis-cli INFO replication")
    assert "role:master" in told
    shell(lab, f"kubectl {WEST} rollout status deployment/patient-service -n hms-system --timeout=60s")
    answer = shell(lab, "curl -f https://api-secondary.hms.enterprise.com/patient-service/health")
    assert '"instance": "postgres-secondary-0@us-west-2", "epoch": 2' in answer
    # What was typed is the beginning of a failover, and the region that was left lives: the command does the rest.
    rest = hmsdr("failover", "us-east-1", "us-west-2", lab=lab)
    assert (rest.status, "not done" in rest.out) == (0, False), rest
    assert '"region": "us-west-2"' in shell(
        lab, "curl -f https://api.hms.enterprise.com/patient-service/health"
    )
    streams = shell(lab, f"kubectl {WEST} exec postgres-secondary-0 -n hms-system -- psql -U postgres -Atc "
                         "'SELECT state FROM pg_stat_replication'")  # fmt: skip
    assert "streaming" in streams


def test_exec_is_a_shell_in_the_pod(lab: Layout) -> None:
    into = "kubectl exec postgres-primary-0 -n hms-system"
    assert "command terminated with exit code 7" in shell(
        lab, f"{into} -- sh -c 'echo out; exit 7'", status=7
    )
    missing = shell(lab, f"{into} -- nosuch", status=127)
    assert 'exec failed: "nosuch": executable file not found in $PATH' in missing
    assert shell(lab, f"echo 'SELECT 40 + 2;' | {into} -i -- psql -U postgres -At").strip() == "42"
    assert "server is running" in shell(lab, f"{into} -- pg_ctl status -D /var/lib/postgresql/data")
    big = shell(lab, f"head -c 3000000 /dev/zero | {into} -i -- wc -c")
    assert big.strip() == "3000000"
    assert shell(lab, f"{into} -- head -c 2000000 /dev/zero | wc -c").strip() == "2000000"
    name = shell(lab, "kubectl exec deploy/patient-service -n hms-system -- printenv POD_NAME").strip()
    assert name.startswith("patient-service-")
    shell(lab, f"timeout 1 {into} -- sleep 1234.5", status=124)
    ends = time.monotonic() + 10
    while subprocess.run(["pgrep", "-f", "^sleep 1234.5$"], check=False, capture_output=True).returncode == 0:
        assert time.monotonic() < ends, "the client hung up, and its command lives on"
        time.sleep(0.1)
