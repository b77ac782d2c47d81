#!/usr/bin/env bash
# Say what is missing before anything starts.
#
#   check.sh builder DOCKER   a docker command with BuildKit, and an engine that answers
#   check.sh platforms DOCKER PLATFORM...
#                             a machine that runs programs of each: its own, or emulated
#   check.sh tests            root and the Debian packages of `make image-test`; they are installed
#                             when CI=true or INSTALL=1
set -euo pipefail

stop() {
  printf '%s\n' "$*" >&2
  exit 1
}

builder() { # docker-command
  local docker=$1 said
  command -v "${docker%% *}" >/dev/null ||
    stop "There is no command '$docker'. Install Docker: sudo scripts/install-docker.sh; or name another: make image DOCKER=..."
  # Unquoted: the command may have arguments, like `sudo docker`.
  # shellcheck disable=SC2086
  said=$($docker version --format '{{.Client.Version}} {{.Server.Version}}' 2>&1) ||
    stop "Docker's engine does not answer: ${said##*$'\n'} Start it (systemctl start docker), or join its group (usermod -aG docker \$USER, then log in again)."
  # Until version 22 the client could do BuildKit by itself; since then it takes a plugin.
  # shellcheck disable=SC2086
  if [ "${said%%.*}" -ge 23 ] && ! $docker buildx version >/dev/null 2>&1; then
    stop "$(command -v "${docker%% *}") has no BuildKit, which the Dockerfile's cache mounts need. Install buildx: apt-get install docker-buildx (Debian 13, Ubuntu), docker-buildx-plugin (Docker's own repository)."
  fi
}

platforms() { # docker-command platform...
  local docker=$1 platform machine own
  own=$(uname -m)
  for platform in "${@:2}"; do
    case $platform in
      linux/amd64) machine=x86_64 ;;
      linux/arm64) machine=aarch64 ;;
      *) stop "'$platform' is no platform of this image: there are linux/amd64 and linux/arm64 (PLATFORMS=linux/amd64,linux/arm64)." ;;
    esac
    [ "$machine" = "$own" ] || grep -qs '^enabled' "${BINFMT:-/proc/sys/fs/binfmt_misc}/qemu-$machine" ||
      stop "This machine ($own) cannot run what is built for $platform. Install an emulator: apt-get install qemu-user-static (Debian, Ubuntu), or $docker run --privileged --rm docker.io/tonistiigi/binfmt --install ${platform#linux/}."
  done
}

tests() {
  local -A packages=(
    [/usr/sbin/dockerd]=docker.io
    [/usr/bin/docker]=docker.io
    [/usr/bin/docker-registry]=docker-registry
    [/usr/bin/docker-compose]=docker-compose
    [/usr/bin/mmdebstrap]=mmdebstrap
    [/usr/sbin/mkfs.ext4]=e2fsprogs
    [/usr/bin/openssl]=openssl
    [/usr/bin/curl]=curl
    [/usr/bin/git]=git
    [/usr/bin/nsenter]=util-linux
    [/usr/sbin/ip]=iproute2
    [/usr/share/keyrings/debian-archive-keyring.gpg]=debian-archive-keyring
  )
  local file missing
  [ "$(id -u)" = 0 ] || stop "These tests start a Docker engine of their own and need root: sudo make image-test"
  missing=$(for file in "${!packages[@]}"; do [ -e "$file" ] || echo "${packages[$file]}"; done | sort -u | tr '\n' ' ')
  [ -n "$missing" ] || return 0
  if [ "${CI:-}" = true ] || [ "${INSTALL:-}" = 1 ]; then
    # Packages are to bring programs, not services: run level 1 keeps them from being started.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    # shellcheck disable=SC2086
    apt-get update --quiet=2 && apt-get install --quiet=2 --yes --no-install-recommends $missing
    return
  fi
  stop "Missing: $missing. Get it with: apt-get install $missing(or let it be installed: make image-test INSTALL=1)"
}

"$@"
