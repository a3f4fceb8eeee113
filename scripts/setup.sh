#!/usr/bin/env bash
# Sets up everything that `make drill` and `make test` need; leaves the command at .venv/bin/hmsdr.
# Done once it is quick: a stamp holds the hash of what it depends on. Exit status 2 when something is missing
# that it cannot install; the message says which packages, and why.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.hmsdr-setup
wanted=$(cat uv.lock pyproject.toml scripts/system-packages.txt scripts/setup.sh | sha256sum | cut -d' ' -f1)
uv_version=0.13.9

missing_packages() {
  while read -r command package _; do
    case "$command" in ''|'#'*) continue ;; esac
    command -v "$command" >/dev/null 2>&1 || PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null 2>&1 ||
      printf '%s\n' "$package"
  done <scripts/system-packages.txt | sort -u
}

refuse() {
  printf 'setup: %s\n' "$1" >&2
  exit 2
}

install_packages() {
  local packages=("$@") sudo=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || explain_missing "${packages[@]}"
    sudo=(sudo)
    [ -t 0 ] || sudo=(sudo -n)
  fi
  command -v apt-get >/dev/null 2>&1 || explain_missing "${packages[@]}"
  printf 'setup: installing %s\n' "${packages[*]}" >&2
  "${sudo[@]}" apt-get update -qq >&2 || true
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" \
    >/dev/null || explain_missing "${packages[@]}"
}

explain_missing() {
  printf 'setup: these system packages are missing and could not be installed here:\n' >&2
  for package in "$@"; do
    printf '  %-16s %s\n' "$package" \
      "$(awk -v p="$package" '$2 == p { $1 = $2 = ""; print substr($0, 3); exit }' scripts/system-packages.txt)" >&2
  done
  refuse "install them (apt-get install $*), then run this again"
}

find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  refuse "no Python 3.11 or newer was found; install one (apt-get install python3)"
}

find_uv() {
  if command -v uv >/dev/null 2>&1; then
    command -v uv
    return
  fi
  local python=$1 tools=.hmsdr-tools
  if [ ! -x "$tools/bin/uv" ]; then
    if ! "$python" -m venv "$tools" >/dev/null 2>&1; then
      # Debian and Ubuntu leave venv's pip out of python3 itself.
      rm -rf "$tools"
      install_packages python3-venv
      "$python" -m venv "$tools"
    fi
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version" >&2
  fi
  printf '%s\n' "$tools/bin/uv"
}

exec 9>.hmsdr-setup.lock
flock 9

mapfile -t missing < <(missing_packages)
if [ "${#missing[@]}" -gt 0 ]; then install_packages "${missing[@]}"; fi

if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ -x .venv/bin/hmsdr ]; then
  exit 0
fi
# Networks with a certificate authority of their own install it into the system, and only there.
if [ -s /etc/ssl/certs/ca-certificates.crt ]; then export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1; fi
python=$(find_python)
uv=$(find_uv "$python")
printf 'setup: Python packages into .venv\n' >&2
# copy: a hard link into a cache that another user owns could not be executed by the lab's unprivileged servers
UV_LINK_MODE=copy "$uv" sync --quiet --frozen --all-extras --all-groups --python "$python"
command -v kubectl >/dev/null 2>&1 ||
  printf 'setup: kubectl is not installed; the product works without it, but tests that run it are skipped\n' >&2
printf '%s' "$wanted" >"$stamp"
