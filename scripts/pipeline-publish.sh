#!/usr/bin/env bash
# Push the image of this commit. A tag is a commit, so one that is there already stays as it is.
set -euo pipefail
# shellcheck source=scripts/pipeline-lib.sh
. "$(dirname "$0")/pipeline-lib.sh"

check_image
need docker
registry_login
if in_registry; then
  say "$IMAGE:$TAG is in the registry already: nothing to push"
  exit 0
fi
docker image inspect "$IMAGE:$TAG" >/dev/null 2>&1 ||
  stop "there is no image $IMAGE:$TAG on this machine. Build it first: make image"
docker push "$IMAGE:$TAG"
say "pushed $IMAGE:$TAG, which is ${IMAGE}@$(image_digest || echo "of unknown digest")"
