#!/usr/bin/env bash
# Deploy the image of this commit with the chart: all of it gets ready in time, or this prints why not,
# puts the release back as it was, and fails. Works with Helm 3 and 4.
#
# Helm could put it back by itself (--atomic), but then the pods are gone that could say why.
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

version=$(helm version --short)
case $version in
  v[3-9].*) ;;
  *) stop "this Helm is '$version'; version 3 or 4 is needed." ;;
esac

status=$(helm status "$RELEASE" --namespace "$NAMESPACE" --output json 2>/dev/null |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["info"]["status"])' 2>/dev/null) || status=none
case $status in
  pending-*) stop "the release $RELEASE is $status: an earlier deploy was cut off. Put it back first: make rollback ENVIRONMENT=$ENVIRONMENT" ;;
esac

# Made by an administrator (deploy/bootstrap.sh): whoever may make one has a right outside of it.
exists=$(kubectl --request-timeout=15s get namespace "$NAMESPACE" 2>&1) || case $exists in
  *NotFound*) stop "the namespace $NAMESPACE does not exist. An administrator of the cluster makes it: deploy/bootstrap.sh --yes namespaces, or kubectl create namespace $NAMESPACE. Nothing was changed." ;;
esac

# By digest, so that what was scanned is what runs, whatever becomes of the tag.
by=(--set-string "image.tag=$TAG")
if digest=${DIGEST:-$(image_digest)}; then
  by+=(--set-string "image.digest=$digest")
else
  say "the registry does not tell the digest of $IMAGE:$TAG to this machine: it goes by its tag"
fi

# A deploy that was refused before it changed anything leaves no revision that failed.
was_changed() {
  local history
  history=$(helm history "$RELEASE" --namespace "$NAMESPACE" --output json 2>/dev/null) || return 1
  python3 -c '
import json, sys
last = json.loads(sys.argv[1])[-1]["status"]
sys.exit(0 if last == "failed" or last.startswith("pending-") else 1)' "$history"
}

# A tag is a string even where all its digits look like a number.
if ! helm upgrade "$RELEASE" deploy/chart --install --namespace "$NAMESPACE" \
  --values "$values" --set-string "image.repository=$IMAGE" "${by[@]}" \
  --wait --timeout "${DEPLOY_TIMEOUT:-5m}" --history-max 10; then
  if was_changed; then
    say "the deploy of $IMAGE:$TAG to $ENVIRONMENT failed. This is why, and then the release is put back:"
    scripts/pipeline-explain.sh
    scripts/pipeline-rollback.sh
  else
    say "the deploy of $IMAGE:$TAG to $ENVIRONMENT was refused: nothing was changed"
  fi
  exit 1
fi
say "deployed $IMAGE:$TAG to $ENVIRONMENT"
