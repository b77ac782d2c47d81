#!/usr/bin/env bash
# Push the image of this commit. A tag is a commit, so one that is there already stays as it is. With
# PLATFORMS (linux/amd64,linux/arm64) the image of each is pushed, and under the tag the index of all of them.
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
platforms=$(arch_tags)
mapfile -t tags <<<"${platforms:-$TAG}"
for tag in "${tags[@]}"; do
  docker image inspect "$IMAGE:$tag" >/dev/null 2>&1 ||
    stop "there is no image $IMAGE:$tag on this machine. Build it first: make image${PLATFORMS:+ PLATFORMS=$PLATFORMS}"
done
for tag in "${tags[@]}"; do
  docker push "$IMAGE:$tag"
done
if [ -n "$platforms" ]; then
  insecure=()
  case $IMAGE in localhost:* | 127.*) insecure=(--insecure) ;; esac
  docker manifest create "${insecure[@]}" "$IMAGE:$TAG" "${tags[@]/#/$IMAGE:}"
  docker manifest push "${insecure[@]}" --purge "$IMAGE:$TAG"
fi
say "pushed $IMAGE:$TAG, which is ${IMAGE}@$(image_digest || echo "of unknown digest")"
