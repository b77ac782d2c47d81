#!/usr/bin/env bash
# Make a base image where no registry can be reached: Debian with python3, imported into Docker.
#
#   stand-in-base.sh NAME[:TAG]     then: make image BASE=NAME:TAG
#
# It stands in for python:3.13-slim, with Debian's own Python. Needs root and mmdebstrap. The archive
# is kept for a day in .delivery/ (KEEP names another directory): making it takes about a minute.
# RELEASE is Debian's (default: this machine's), DOCKER the docker command.
set -euo pipefail

name=${1:?usage: stand-in-base.sh NAME[:TAG]}
keep=${KEEP:-$(cd "$(dirname "$0")/../.." && pwd)/.delivery}
# shellcheck source=/dev/null
release=${RELEASE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
read -r -a docker <<<"${DOCKER:-docker}"

command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 1; }
mkdir -p "$keep"
archive=$keep/stand-in-base-$release.tar
if [ -z "$(find "$archive" -mtime -1 2>/dev/null)" ]; then
  # Half as long in memory, where there is room for it and programs may run.
  if [ "$(df --output=avail --block-size=1M /dev/shm 2>/dev/null | tail -n 1)" -gt 1500 ] &&
    ! findmnt --noheadings --output OPTIONS /dev/shm | grep -q noexec; then
    export TMPDIR=/dev/shm
  fi
  # Like python:3.13-slim: no compiler, no manual pages. Security updates are among the sources.
  # Without waiting for the disk: a root that is lost is made again.
  mmdebstrap --quiet --mode=root --format=tar --variant=minbase --include=ca-certificates,python3,python3-venv \
    --dpkgopt='force-unsafe-io' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$release" "$archive.new"
  mv "$archive.new" "$archive"
fi
"${docker[@]}" import --change 'CMD ["python3"]' "$archive" "$name" >/dev/null
echo "$name stands in for python:3.13-slim: Debian $release with $(tar -tf "$archive" | sed -n 's|^./usr/bin/\(python3\.[0-9]*\)$|\1|p')"
