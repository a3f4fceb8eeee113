#!/usr/bin/env bash
# restore-kubernetes.sh: restores a cluster's objects from a backup, as the playbook calls it; the same as `hmsdr backup restore-kubernetes`.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
hmsdr=$here/.venv/bin/hmsdr
[ -x "$hmsdr" ] || hmsdr=hmsdr
exec "$hmsdr" backup restore-kubernetes "$@"
