#!/usr/bin/env bash
# Print the digest of this commit's image in the registry, so that what comes later needs no tag and no
# credentials of the registry (DIGEST of deploy and verify). REGISTRY_USER and REGISTRY_PASSWORD where it is private.
set -euo pipefail
# shellcheck source=scripts/pipeline-lib.sh
. "$(dirname "$0")/pipeline-lib.sh"

check_image
need docker python3
[ -z "${REGISTRY_USER:-}" ] || registry_login
image_digest || stop "the registry does not tell the digest of $IMAGE:$TAG. Push it first: make publish"
