# shellcheck shell=bash
# What the pipeline's scripts share; it is sourced, not run.

say() { printf '%s\n' "$*"; }

stop() { # what is wrong and what to do: before anything was changed
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

need() { # command...
  local command
  for command; do
    command -v "$command" >/dev/null ||
      stop "the command $command is missing on this machine; deploy/jenkins/README.md (The agent) says how to install it."
  done
}

check_image() { # IMAGE and TAG name an image that can be pushed
  [[ ${IMAGE:-} =~ ^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$ ]] ||
    stop "'${IMAGE:-}' is no name of an image. Give REGISTRY and REPOSITORY (in Jenkins: parameters), which make IMAGE, like docker.io/keyrack/keyrack."
  [[ ${TAG:-} =~ ^[0-9a-f]{40}$ ]] ||
    stop "'${TAG:-}' is no full hash of a commit (40 hexadecimal digits). Commit what was changed and leave TAG out, or name a commit: TAG=\$(git rev-parse HEAD)"
}

check_environment() { # ENVIRONMENT names where to deploy to
  case ${ENVIRONMENT:-} in
    staging | production) ;;
    *) stop "'${ENVIRONMENT:-}' is no environment. Use ENVIRONMENT=staging or ENVIRONMENT=production." ;;
  esac
  RELEASE=${RELEASE:-keyrack}
  NAMESPACE=${NAMESPACE:-keyrack-$ENVIRONMENT}
  export RELEASE NAMESPACE
}

check_cluster() { # the cluster of KUBECONFIG answers; nothing is changed
  local answer
  answer=$(kubectl --request-timeout=15s get --raw=/version 2>&1) ||
    stop "the cluster of $ENVIRONMENT does not answer: ${answer##*$'\n'}. Check KUBECONFIG and that this machine reaches the cluster. Nothing was changed."
}

registry_login() { # logs in for this script alone: nothing stays in the home directory
  local registry=${IMAGE%%/*}
  if [ -z "${REGISTRY_USER:-}" ] || [ -z "${REGISTRY_PASSWORD:-}" ]; then
    stop "there are no credentials for $registry: REGISTRY_USER or REGISTRY_PASSWORD is empty. In Jenkins they are the credential 'dockerhub' (DOCKERHUB_USER and DOCKERHUB_TOKEN of the controller). Nothing was changed."
  fi
  DOCKER_CONFIG=$(mktemp -d)
  export DOCKER_CONFIG
  trap 'rm -rf "$DOCKER_CONFIG"' EXIT
  local answer
  answer=$(docker login --username "$REGISTRY_USER" --password-stdin "$registry" 2>&1 <<<"$REGISTRY_PASSWORD") ||
    stop "$registry does not let the user '$REGISTRY_USER' in: ${answer##*$'\n'}. Check that it can be reached from here, and that its token is still good. Nothing was changed."
}

image_digest() { # what the registry has under the tag, also for several platforms; fails where it does not say
  local -a options=()
  case $IMAGE in localhost:* | 127.*) options=(--insecure) ;; esac
  docker manifest inspect "${options[@]}" --verbose "$IMAGE:$TAG" 2>/dev/null | python3 -c '
import json, re, sys
found = json.load(sys.stdin)
# An image of one platform. Of one of several, this is a list of images, and its own digest is not told.
digest = found["Descriptor"]["digest"] if isinstance(found, dict) else ""
print(digest) if re.fullmatch("sha256:[0-9a-f]{64}", digest) else sys.exit(3)' 2>/dev/null && return
  [ "${PIPESTATUS[1]}" -eq 3 ] || return 1
  python3 "$(dirname "${BASH_SOURCE[0]}")/../deploy/image/digest.py" "$IMAGE:$TAG"
}

arch_tags() { # the tags of the images of PLATFORMS (linux/amd64,linux/arm64), one a line; none without
  local platform
  for platform in ${PLATFORMS//,/ }; do
    [[ $platform =~ ^linux/[a-z0-9]+(/v[0-9]+)?$ ]] || stop "'$platform' is no platform. PLATFORMS is a list like linux/amd64,linux/arm64."
    printf '%s-%s\n' "$TAG" "$(tr / - <<<"${platform#linux/}")"
  done
}

in_registry() {
  local -a options=()
  # As for Docker itself, a registry on this machine needs no TLS.
  case $IMAGE in localhost:* | 127.*) options=(--insecure) ;; esac
  docker manifest inspect "${options[@]}" "$IMAGE:$TAG" >/dev/null 2>&1
}
