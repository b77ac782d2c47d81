#!/usr/bin/env bash
# Verify what was deployed: that it runs the image of this commit, and that its API answers to the
# letter (scripts/verify-api.sh). The address to ask is that of the Ingress (or of the HTTPRoute) in the values
# that the environment was deployed with, deploy/jenkins/ENVIRONMENT.yaml; VERIFY_URL names another one. Without
# any the Service is asked through `kubectl port-forward`.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/pipeline-lib.sh
. scripts/pipeline-lib.sh

check_image
check_environment
need helm kubectl curl python3
check_cluster

ours=(--namespace "$NAMESPACE" --selector "app.kubernetes.io/instance=$RELEASE")
running=$(kubectl get statefulsets,deployments "${ours[@]}" \
  --output 'jsonpath={range .items[*]}{.spec.template.spec.containers[*].image}{"\n"}{end}')
digest=${DIGEST:-$(image_digest)} || digest=none
[ "$running" = "$IMAGE:$TAG" ] || [ "$running" = "$IMAGE@$digest" ] || {
  printf 'FAIL  %s should run %s\n      and runs       %s\n' "$ENVIRONMENT" "$IMAGE:$TAG" "${running:-nothing}" >&2
  exit 1
}
say "ok    $ENVIRONMENT runs $IMAGE:$TAG"

# What the pods take their tokens' hashes from holds a token for this, too.
secret=$(kubectl get statefulsets,deployments "${ours[@]}" \
  --output 'jsonpath={.items[0].spec.template.spec.volumes[?(@.name=="auth")].secret.secretName}')
if [ -z "${KEYRACK_TOKEN:-}" ] && [ -n "$secret" ]; then
  KEYRACK_TOKEN=$(kubectl get secret --namespace "$NAMESPACE" "$secret" --output 'jsonpath={.data.token}' | base64 --decode)
  export KEYRACK_TOKEN
fi

# The first name that is a whole one. A Gateway's listener ends TLS where nobody here sees it: https is what is meant.
address=$(helm get values "$RELEASE" --namespace "$NAMESPACE" --output json | python3 -c '
import json, sys
values = json.load(sys.stdin) or {}
ingress, route = values.get("ingress") or {}, values.get("httpRoute") or {}
for part, names in ((ingress, "hosts"), (route, "hostnames")):
    whole = [name for name in part.get(names) or [] if not name.startswith("*")] if part.get("enabled") else []
    if whole:
        print(("https://" if part is route or part.get("tls") else "http://") + whole[0])
        break')
if [ -n "${VERIFY_URL:-$address}" ]; then
  say "asked at ${VERIFY_URL:-$address}"
  export ATTEMPTS=${ATTEMPTS:-120} # seconds: a load balancer learns of a first pod after the cluster does
  exec scripts/verify-api.sh "${VERIFY_URL:-$address}"
fi

# A headless Service has no address of its own; the other one is what clients use.
service=$(kubectl get services "${ours[@]}" \
  --output 'jsonpath={range .items[?(@.spec.clusterIP!="None")]}{.metadata.name} {.spec.ports[0].port}{"\n"}{end}' | head -n 1)
[ -n "$service" ] || { printf 'FAIL  there is no Service of the release %s in %s\n' "$RELEASE" "$NAMESPACE" >&2; exit 1; }
log=$(mktemp)
kubectl port-forward --namespace "$NAMESPACE" "service/${service% *}" ":${service#* }" >"$log" 2>&1 &
forward=$!
trap 'kill "$forward" 2>/dev/null || true; rm -f "$log"' EXIT
port=
for ((attempt = 0; attempt < 100; attempt++)); do
  port=$(sed -n 's/^Forwarding from 127\.0\.0\.1:\([0-9]*\) .*/\1/p' "$log")
  if [ -n "$port" ] || ! kill -0 "$forward" 2>/dev/null; then break; fi
  sleep 0.1
done
[ -n "$port" ] || { printf 'FAIL  the Service %s cannot be reached: %s\n' "${service% *}" "$(tail -n 1 "$log")" >&2; exit 1; }
scripts/verify-api.sh "http://127.0.0.1:$port"
