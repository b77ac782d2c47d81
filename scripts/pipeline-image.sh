#!/usr/bin/env bash
# End with status 0 if the image of this commit exists and need not be built, else with 1.
# One that only the registry has is pulled, so that the stages after this find it.
# REGISTRY_USER and REGISTRY_PASSWORD are used when they are given (a private repository needs them).
set -euo pipefail
# shellcheck source=scripts/pipeline-lib.sh
. "$(dirname "$0")/pipeline-lib.sh"

check_image
need docker
# With PLATFORMS there is one image for each, and only all of them together are enough.
platforms=$(arch_tags)
mapfile -t tags <<<"$TAG${platforms:+$'\n'$platforms}"
here() {
  local tag
  for tag in "${tags[@]}"; do docker image inspect "$IMAGE:$tag" >/dev/null 2>&1 || return 1; done
}
if here; then
  say "$IMAGE:$TAG exists on this machine: it is not built again"
  exit 0
fi
[ -z "${REGISTRY_USER:-}" ] || registry_login
if in_registry; then
  for tag in "${tags[@]}"; do docker pull --quiet "$IMAGE:$tag"; done
  say "$IMAGE:$TAG exists in the registry: it is not built again"
  exit 0
fi
say "$IMAGE:$TAG does not exist yet"
exit 1
