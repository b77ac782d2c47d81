#!/usr/bin/env bash
# Sign the image that was pushed, by its digest, attach what is in it and how it was made, and verify all of it.
# Needs cosign, and COSIGN_PRIVATE_KEY and COSIGN_PASSWORD (cosign generate-key-pair); where one of them is
# missing it says so and signs nothing. REQUIRE_SIGNATURE=1 makes that an error.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/pipeline-lib.sh
. scripts/pipeline-lib.sh

check_image
if ! command -v cosign >/dev/null || [ -z "${COSIGN_PRIVATE_KEY:-}" ]; then
  [ -z "${REQUIRE_SIGNATURE:-}" ] || stop "cosign or COSIGN_PRIVATE_KEY is missing, and REQUIRE_SIGNATURE demands a signature."
  say "not signed: cosign or COSIGN_PRIVATE_KEY is missing"
  exit 0
fi
need docker python3 git
registry_login
digest=$(image_digest) || stop "the registry does not tell the digest of $IMAGE:$TAG. Push it first: make publish"
reference=$IMAGE@$digest
work=$(mktemp -d)
trap 'rm -rf "$work" "$DOCKER_CONFIG"' EXIT

python3 deploy/image/sbom.py "$IMAGE:$TAG" >"$work/sbom.json"
# What it was made from: the form of SLSA's provenance, version 1.
python3 - "$TAG" "${BUILD_URL:-by hand}" >"$work/provenance.json" <<'PYTHON'
import json, sys
commit, build = sys.argv[1:]
print(json.dumps({
    "buildDefinition": {
        "buildType": "https://github.com/keyrack/keyrack/blob/main/Dockerfile",
        "externalParameters": {"target": "make image"},
        "resolvedDependencies": [{"uri": "git+https://github.com/keyrack/keyrack", "digest": {"gitCommit": commit}}],
    },
    "runDetails": {"builder": {"id": "Jenkinsfile"}, "metadata": {"invocationId": build}},
}))
PYTHON
cosign public-key --key env://COSIGN_PRIVATE_KEY >"$work/cosign.pub"
cosign sign --yes --key env://COSIGN_PRIVATE_KEY "$reference"
cosign attest --yes --key env://COSIGN_PRIVATE_KEY --type cyclonedx --predicate "$work/sbom.json" "$reference"
cosign attest --yes --key env://COSIGN_PRIVATE_KEY --type slsaprovenance1 --predicate "$work/provenance.json" "$reference"
cosign verify --key "$work/cosign.pub" "$reference" >/dev/null
cosign verify-attestation --key "$work/cosign.pub" --type cyclonedx "$reference" >/dev/null
cosign verify-attestation --key "$work/cosign.pub" --type slsaprovenance1 "$reference" >/dev/null
say "signed $reference, with its packages and its origin"
