#!/usr/bin/env bash
# Install Docker with BuildKit from the distribution's own packages, and start it at every boot.
# Ubuntu 22.04, Debian 12, Amazon Linux 2023, or newer.
#
#   sudo scripts/install-docker.sh [USER]     USER may then use Docker, which is as much as being root
#
# Run it as often as you like: it changes only what is missing.
set -euo pipefail

stop() {
  printf 'install-docker: %s\n' "$*" >&2
  exit 2
}

[ "$(id -u)" = 0 ] || stop "this installs packages: run it with sudo."
[ "$#" = 0 ] || id "$1" >/dev/null 2>&1 || stop "there is no user '$1'."
# shellcheck source=/dev/null
. /etc/os-release

# Where the client comes apart from the engine, or BuildKit apart from the client, they are listed
# too. Older Debian has both in docker.io, Amazon Linux in docker.
install_with_apt() {
  local package missing=()
  export DEBIAN_FRONTEND=noninteractive
  for package in docker.io docker-cli docker-buildx ca-certificates; do
    dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  # What this release does not have is missing after every run; only what can be had counts.
  [ "${#missing[@]}" -gt 0 ] || return 0
  [ -n "$(find /var/lib/apt/lists -name '*_Packages*' -mmin -1440 2>/dev/null | head -n 1)" ] || apt-get update --quiet=2
  mapfile -t missing < <(for package in "${missing[@]}"; do
    apt-cache show --no-all-versions "$package" 2>/dev/null | sed -n 's/^Package: //p'
  done)
  [ "${#missing[@]}" -eq 0 ] || apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" iptables </dev/null
}

install_with_dnf() {
  rpm --query --quiet docker || dnf install --quiet --assumeyes docker
}

case "${ID:-}:${ID_LIKE:-}" in
  debian:* | ubuntu:* | *:*debian*) install_with_apt ;;
  amzn:*) install_with_dnf ;;
  *) stop "${PRETTY_NAME:-this system} is not known here. Use Ubuntu, Debian or Amazon Linux 2023, or install Docker by its own manual." ;;
esac

if [ "$#" -gt 0 ] && ! id -nG "$1" | grep -qw docker; then
  usermod --append --groups docker "$1"
  echo "$1 may use Docker after the next login."
fi
if [ -d /run/systemd/system ]; then
  systemctl enable --quiet --now docker
else
  echo "systemd does not run here: start dockerd yourself."
fi
docker --version
