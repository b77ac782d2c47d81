#!/usr/bin/env bash
# Check what a build was given, before it changes anything.
#
#   scripts/pipeline-check.sh            the names: IMAGE and TAG
#   scripts/pipeline-check.sh access     also that the registry takes REGISTRY_USER and REGISTRY_PASSWORD,
#                                        and that the clusters of KUBECONFIG_STAGING and
#                                        KUBECONFIG_PRODUCTION (files) answer and allow a deploy
set -euo pipefail
# shellcheck source=scripts/pipeline-lib.sh
. "$(dirname "$0")/pipeline-lib.sh"

check_image
say "image    $IMAGE:$TAG"
[ "${1:-}" = access ] || exit 0

need docker helm kubectl curl python3
registry_login
say "registry ${IMAGE%%/*} takes the credentials of $REGISTRY_USER"
for ENVIRONMENT in staging production; do
  name=KUBECONFIG_${ENVIRONMENT^^}
  export KUBECONFIG=${!name:-}
  [ -s "$KUBECONFIG" ] ||
    stop "there is no kubeconfig for $ENVIRONMENT: $name names no file with content. In Jenkins it is the credential 'kubeconfig-$ENVIRONMENT' (the file $name in the controller's secrets). Nothing was changed."
  unset NAMESPACE
  check_environment
  check_cluster
  kubectl --request-timeout=15s --namespace "$NAMESPACE" auth can-i create statefulsets.apps >/dev/null 2>&1 ||
    stop "the kubeconfig of $ENVIRONMENT may not deploy: it cannot create statefulsets in the namespace $NAMESPACE. Give its user the role 'edit' there. Nothing was changed."
  say "cluster  $ENVIRONMENT answers and lets us deploy to $NAMESPACE"
done
