#!/usr/bin/env bash
# health-check.sh: what the playbook calls at the end of a failover; the same as `hmsdr health-check`.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
hmsdr=$here/.venv/bin/hmsdr
[ -x "$hmsdr" ] || hmsdr=hmsdr
exec "$hmsdr" health-check "$@"
