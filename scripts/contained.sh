#!/usr/bin/env bash
# Run one of the delivery's tests as root in a throw-away Debian, so that an agent needs Docker for it and nothing else:
#
#   scripts/contained.sh TARGET [LIMIT]     TARGET of make: pipeline-test, infra-test, image-test; LIMIT like 60m
#
# The checkout is cloned into the container, which installs what the tests ask for, by itself (CI=true). That of
# image-test is privileged, because it starts a Docker of its own; who may start containers may do all that anyway.
#   CONTAINED_BASE       the image [debian:13-slim]; any Debian 12 or newer
#   CONTAINED_ARGS       more flags of `docker run`: --network host, --volume /etc/pip.conf:/etc/pip.conf:ro
#   TERRAFORM_VERSION    which one infra-test gets [1.13.4]; TERRAFORM_SITE is where from
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:?usage: contained.sh TARGET [LIMIT]}
name=keyrack-$target-$$
read -r -a more <<<"${CONTAINED_ARGS:-}"
[ "$target" != image-test ] || more+=(--privileged --volume /var/lib/docker)

# A client that is ended leaves its container running.
trap 'docker rm --force --volumes "$name" >/dev/null 2>&1 || true' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

docker run --rm --init --name "$name" --env CI=true --env DEBIAN_FRONTEND=noninteractive --env RUNLEVEL=1 \
  --env "TARGET=$target" --env "LIMIT=${2:-60m}" \
  --env "TERRAFORM_VERSION=${TERRAFORM_VERSION:-1.13.4}" --env "TERRAFORM_SITE=${TERRAFORM_SITE:-https://releases.hashicorp.com/terraform}" \
  --volume "$PWD:/checkout:ro" --tmpfs /tmp:exec "${more[@]}" \
  "${CONTAINED_BASE:-debian:13-slim}" bash -euo pipefail -c '
    # Java cannot be installed without this one, which a slim Debian lacks.
    mkdir -p /usr/share/man/man1
    apt-get update --quiet=2
    apt-get install --quiet=2 --yes --no-install-recommends ca-certificates curl git make python3 python3-venv >/dev/null
    git config --global --add safe.directory "*"
    git clone --quiet /checkout /keyrack
    cd /keyrack
    if [ "$TARGET" = infra-test ]; then
      file=terraform_${TERRAFORM_VERSION}_linux_$(dpkg --print-architecture).zip
      curl --fail --silent --show-error --location --retry 3 --remote-name "$TERRAFORM_SITE/$TERRAFORM_VERSION/$file"
      curl --fail --silent --show-error --location --retry 3 "$TERRAFORM_SITE/$TERRAFORM_VERSION/terraform_${TERRAFORM_VERSION}_SHA256SUMS" |
        grep " $file\$" | sha256sum --check --quiet
      python3 -m zipfile --extract "$file" /usr/local/bin
      chmod +x /usr/local/bin/terraform
      rm "$file"
    fi
    exec timeout --kill-after=60 "$LIMIT" make "$TARGET"' &
wait $!
