#!/usr/bin/env bash
# Deploy the image of this commit with the chart: all of it gets ready in time, or Helm puts the
# release back as it was and this fails. Works with Helm 3 and 4.
#
# ENVIRONMENT (staging, production) gives the namespace keyrack-ENVIRONMENT and the values
# deploy/jenkins/ENVIRONMENT.yaml; NAMESPACE, RELEASE and VALUES overrule. KUBECONFIG is the cluster.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/pipeline-lib.sh
. scripts/pipeline-lib.sh

check_image
check_environment
need helm kubectl python3
values=${VALUES:-deploy/jenkins/$ENVIRONMENT.yaml}
[ -f "$values" ] || stop "the file of values $values does not exist. Name another with VALUES=..."
check_cluster

# Helm 4 has another name for the same thing, and will drop the old one.
version=$(helm version --short)
case $version in
  v3.*) undo=--atomic ;;
  v[4-9].*) undo=--rollback-on-failure ;;
  *) stop "this Helm is '$version'; version 3 or 4 is needed." ;;
esac

status=$(helm status "$RELEASE" --namespace "$NAMESPACE" --output json 2>/dev/null |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["info"]["status"])' 2>/dev/null) || status=none
case $status in
  pending-*) stop "the release $RELEASE is $status: an earlier deploy was cut off. Put it back first: make rollback ENVIRONMENT=$ENVIRONMENT" ;;
esac

# Helm fails where it may not make a namespace, also when that is there already.
namespace=(--namespace "$NAMESPACE")
if kubectl --request-timeout=15s auth can-i create namespaces >/dev/null 2>&1; then
  namespace+=(--create-namespace)
fi

# A tag is a string even where all its digits look like a number.
helm upgrade "$RELEASE" deploy/chart --install "${namespace[@]}" \
  --values "$values" --set-string "image.repository=$IMAGE" --set-string "image.tag=$TAG" \
  --wait "$undo" --timeout "${DEPLOY_TIMEOUT:-5m}" --history-max 10
say "deployed $IMAGE:$TAG to $ENVIRONMENT"
