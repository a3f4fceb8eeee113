#!/usr/bin/env bash
# restore-database.sh: restores the database from a backup, as the playbook calls it; the same as `hmsdr backup restore-database`.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
hmsdr=$here/.venv/bin/hmsdr
[ -x "$hmsdr" ] || hmsdr=hmsdr
exec "$hmsdr" backup restore-database "$@"
