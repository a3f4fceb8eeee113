#!/usr/bin/env bash
# Sets up everything that `make drill` and `make test` need; leaves the command at .venv/bin/hmsdr.
# `setup.sh bench` also brings what only the benchmark needs. Done once it is quick: a stamp holds the hash of what it depends on. Exit status 2 when something is missing
# that it cannot install; the message says which packages, and why.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.hmsdr-setup
wanted=$(cat uv.lock pyproject.toml scripts/system-packages.txt scripts/setup.sh scripts/fetch_kubectl.py |
  sha256sum | cut -d' ' -f1)
uv_version=0.13.9
# What uv must never do here: bring another Python than the machine's.
export UV_PYTHON_DOWNLOADS=never

# Commands in the list are looked for also where only root's PATH points.
have() { PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

missing_packages() {
  while read -r command package _; do
    case "$command" in '' | '#'* | -) continue ;; esac
    have "$command" || printf '%s\n' "$package"
  done <scripts/system-packages.txt | sort -u
}

refuse() {
  printf 'setup: %s\n' "$1" >&2
  exit 2
}

explain_missing() {
  printf 'setup: these system packages are missing and could not be installed here:\n' >&2
  local package
  for package in "$@"; do
    printf '  %-16s %s\n' "$package" \
      "$(awk -v p="$package" '$2 == p { $1 = $2 = ""; print substr($0, 3); exit }' scripts/system-packages.txt)" >&2
  done
  refuse "install them (as root: apt-get install $*), then run this again"
}

install_packages() {
  local packages=("$@") sudo=()
  have apt-get || explain_missing "${packages[@]}"
  if [ "$(id -u)" != 0 ]; then
    have sudo || explain_missing "${packages[@]}"
    sudo=(sudo)
    [ -t 0 ] || sudo=(sudo -n)
  fi
  printf 'setup: installing %s\n' "${packages[*]}" >&2
  # 9>&-: whatever a package starts must not hold our lock.
  "${sudo[@]}" apt-get update -qq >&2 9>&- || true
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${packages[@]}" >/dev/null 9>&- || explain_missing "${packages[@]}"
  # The lab starts servers of its own; those that Debian started just now, for all the world, are not wanted.
  if [ -d /run/systemd/system ]; then
    local package
    for package in "${packages[@]}"; do
      case "$package" in
        redis-server | prometheus) "${sudo[@]}" systemctl disable --quiet --now "$package" >&2 9>&- || true ;;
      esac
    done
  fi
}

find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if have "$candidate" && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  refuse "no Python 3.11 or newer was found; install one (apt-get install python3)"
}

find_uv() {
  # `uv --version`: a version manager's shim can be on PATH with nothing behind it.
  if uv --version >/dev/null 2>&1; then
    command -v uv
    return
  fi
  local python=$1 tools=.hmsdr-tools
  if [ "$("$tools/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$uv_version" ]; then
    rm -rf "$tools"
    if ! "$python" -m venv "$tools" >/dev/null 2>&1; then
      # Debian and Ubuntu leave venv's pip out of python3 itself.
      rm -rf "$tools"
      install_packages python3-venv
      "$python" -m venv "$tools" || refuse "$python cannot make a virtual environment, even with python3-venv"
    fi
    printf 'setup: uv %s into %s\n' "$uv_version" "$tools" >&2
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version" >&2 ||
      refuse "uv $uv_version could not be installed from PyPI (see above); is there a way to it from here?"
  fi
  printf '%s\n' "$tools/bin/uv"
}

exec 9>.hmsdr-setup.lock
flock 9

mapfile -t missing < <(missing_packages)
if [ "${#missing[@]}" -gt 0 ]; then install_packages "${missing[@]}"; fi

groups=(--group dev)
if [ "${1:-}" = bench ]; then groups=(--all-groups); fi
# The stamp's second word says that the benchmark's packages are there too; who does not need them leaves them alone.
read -r done_for done_too 2>/dev/null <"$stamp" || true
if [ "${done_for:-}" = "$wanted" ] && [ -x .venv/bin/hmsdr ] && [[ "${1:-}" != bench || "${done_too:-}" = bench ]]; then
  exit 0
fi
# Networks with a certificate authority of their own install it into the system, and only there.
authorities=/etc/ssl/certs/ca-certificates.crt
if [ -s "$authorities" ]; then export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 PIP_CERT="${PIP_CERT:-$authorities}"; fi
python=$(find_python)
uv=$(find_uv "$python")
printf 'setup: Python packages into .venv\n' >&2
# copy: a hard link into a cache that another user owns could not be executed by the lab's unprivileged servers
UV_LINK_MODE=copy "$uv" sync --quiet --frozen --all-extras "${groups[@]}" --python "$python"
if ! have kubectl && [ ! -x .venv/bin/kubectl ]; then
  .venv/bin/python scripts/fetch_kubectl.py "$uv" .venv/bin/kubectl ||
    printf 'setup: there is no kubectl; the product works without it, but tests that run it are skipped\n' >&2
fi
printf '%s' "$wanted${1:+ $1}" >"$stamp"
