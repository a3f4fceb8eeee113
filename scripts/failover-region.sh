#!/usr/bin/env bash
# failover-region.sh FROM TO: what the playbook calls; the same as `hmsdr failover FROM TO`.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
hmsdr=$here/.venv/bin/hmsdr
[ -x "$hmsdr" ] || hmsdr=hmsdr
exec "$hmsdr" failover "$@"
